/** The kernels of support/ by themselves, on every instruction set that this machine runs: functions, and the sampler. */
import koffi from 'koffi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workspace } from '../../../tests/support/models.js';
import type { OperatorOf } from '../../ir/program.js';
import type { Operand } from '../../ops/definition.js';
import { allowedWords, maxBiasedTokens, sample, settingsPerSample } from '../../ops/sample.js';
import { f32ToBf16Array } from '../../util/float.js';
import { usableInstructionSets } from './instruction-set.js';
import { compileLibrary, findCompiler } from './toolchain.js';

const source = `#include KLOOP_SIMD
#include "engine.h"
#include "linear.h"
#include "elementwise.h"
#include "attention.h"
#include "sample.h"
static const struct call *const programs[] = {NULL};
#define KLOOP_ARENA_BYTES 0ull
#define KLOOP_OWN_BYTES 0ull
#define KLOOP_WEIGHT_BYTES 0ull
#include "library.h"
#define MAP(name) \\
  EXPORT void test_##name(const float *x, float *y, int n) { \\
    for (int i = 0; i < n; i += 16) v16_store_part(y + i, v16_##name(v16_load_part(x + i, n - i < 16 ? n - i : 16)), n - i < 16 ? n - i : 16); \\
  }
MAP(exp)
MAP(tanh)
MAP(silu)
MAP(gelu)
EXPORT void test_bf16(const float *x, uint16_t *y, int n) { for (int i = 0; i < n; ++i) y[i] = to_bf16(x[i]); }
EXPORT int test_choose(const float *logits, int vocab, const int32_t *history, int count, const float *settings,
                       const int32_t *seed, int position, const int32_t *biased, const float *biases,
                       const int32_t *allowed) {
  struct worker me = {.own = malloc((size_t)vocab * sampler_bytes_per_token())};
  /* What another kernel has left there. */
  memset(me.own, 0x5b, (size_t)vocab * sampler_bytes_per_token());
  struct sampler s = sampler_at(&me, 0, vocab);
  const int token = choose(&s, logits, &(struct edits){biased, biases, allowed}, history, count, settings, seed, position);
  free(me.own);
  return token;
}
`;

type Map16 = (x: Float32Array, y: Float32Array | Uint16Array, n: number) => void;
interface TestLibrary {
  readonly map: (name: string) => (x: Float32Array) => Float32Array;
  readonly bf16: (x: Float32Array) => Uint16Array;
  readonly choose: (choice: Choice) => number;
}

type Five = [number, number, number, number, number];

interface Choice {
  readonly logits: Float32Array;
  readonly history: readonly number[];
  /** temperature, top-k, top-p, min-p, then the penalties: repetition, presence, frequency, where what was made begins */
  readonly settings: readonly [...Five, presence?: number, frequency?: number, madeFrom?: number];
  readonly seed: readonly [number, number];
  readonly bias?: readonly (readonly [token: number, bias: number])[];
  readonly allowed?: readonly number[];
}

/** The operands that settings and edits become. */
function settingsOf({ settings, bias = [], allowed }: Choice): Float32Array {
  const full = new Float32Array(settingsPerSample);
  full.set(settings as readonly number[]);
  full.set([bias.length, allowed === undefined ? 0 : 1], 8);
  return full;
}

function editsOf({ logits, bias = [], allowed = [] }: Choice): readonly [Int32Array, Float32Array, Int32Array] {
  // What is beyond the count is from an older sample.
  const biased = new Int32Array(maxBiasedTokens).fill(-7);
  const biases = new Float32Array(maxBiasedTokens).fill(1000);
  bias.forEach(([token, value], i) => ([biased[i], biases[i]] = [token, value]));
  const mask = new Int32Array(allowedWords(logits.length));
  for (const token of allowed) mask[token >> 5]! |= 1 << (token & 31);
  return [biased, biases, mask];
}

const workspace = new Workspace();
afterAll(() => workspace.remove());

function loadTestLibrary(path: string): TestLibrary {
  const library = koffi.load(path);
  const map =
    (name: string) =>
    (x: Float32Array): Float32Array => {
      const y = new Float32Array(x.length);
      (library.func(`void test_${name}(const float *x, float *y, int n)`) as Map16)(x, y, x.length);
      return y;
    };
  const choose = library.func(
    'int test_choose(const float *logits, int vocab, const int32_t *history, int count, const float *settings, const int32_t *seed, int position, const int32_t *biased, const float *biases, const int32_t *allowed)',
  ) as (...values: unknown[]) => number;
  return {
    map,
    bf16: (x) => {
      const y = new Uint16Array(x.length);
      (library.func('void test_bf16(const float *x, uint16_t *y, int n)') as Map16)(x, y, x.length);
      return y;
    },
    choose: (choice) =>
      choose(
        choice.logits,
        choice.logits.length,
        Int32Array.from(choice.history),
        choice.history.length,
        settingsOf(choice),
        Int32Array.from(choice.seed),
        choice.history.length - 1,
        ...editsOf(choice),
      ),
  };
}

/** The choice as ops/sample.ts means it. */
function expectedToken(choice: Choice): number {
  const { logits, history, seed } = choice;
  const vocab = logits.length;
  const rows = (shape: number[], data: Float32Array | Int32Array): Operand => ({
    dtype: data instanceof Int32Array ? 'i32' : 'f32',
    shape,
    data,
  });
  const [biased, biases, allowed] = editsOf(choice);
  const operands: Record<string, Operand> = {
    logits: rows([1, vocab], logits),
    index: rows([1], Int32Array.of(0)),
    slots: rows([1], Int32Array.of(0)),
    positions: rows([1], Int32Array.of(history.length - 1)),
    history: rows([1, history.length], Int32Array.from(history)),
    settings: rows([1, settingsPerSample], settingsOf(choice)),
    seeds: rows([1, 2], Int32Array.from(seed)),
    biased: rows([1, maxBiasedTokens], biased),
    biases: rows([1, maxBiasedTokens], biases),
    allowed: rows([1, allowed.length], allowed),
    token: rows([1], new Int32Array(1)),
  };
  const operandNames = [...sample.reads, ...sample.optionalReads];
  const names = Object.fromEntries(operandNames.map((name) => [name, name])) as OperatorOf<'sample'>['reads'];
  const operator: OperatorOf<'sample'> = {
    kind: 'sample',
    reads: names,
    updates: {},
    writes: { token: 'token' },
    attributes: {},
  };
  sample.evaluate(operator, [(name) => operands[name]!]);
  return operands['token']!.data[0]!;
}

/** Small, repeatable noise. */
function createNoise(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

function noisyLogits(vocab: number, seed: number, steps = 0): Float32Array {
  const noise = createNoise(seed);
  return Float32Array.from({ length: vocab }, () => {
    const value = (noise() + noise() + noise() - 1.5) * 8;
    return steps === 0 ? value : Math.round(value * steps) / steps;
  });
}

const runnable = usableInstructionSets();

describe.each(runnable.map((set) => [set.name, set] as const))('support kernels on %s', (_, instructionSet) => {
  let library: TestLibrary;
  beforeAll(async () => {
    const compiler = (await findCompiler())!;
    library = loadTestLibrary(await compileLibrary({ source, instructionSet, cacheDir: workspace.cacheDir, compiler }));
  });

  const grid = Float32Array.from({ length: 40_001 }, (_, i) => (i - 20_000) / 200);

  /** Largest error, relative to the larger of the value and `floor`. */
  function worst(name: string, exact: (x: number) => number, floor: number, x = grid): number {
    const y = library.map(name)(x);
    return y.reduce((most, value, i) => {
      const want = exact(x[i]!);
      return Math.max(most, Math.abs(value - want) / Math.max(Math.abs(want), floor));
    }, 0);
  }

  it('has exp within two units in the last place, and next to nothing far below', () => {
    const inside = grid.filter((x) => x > -87 && x < 88);
    expect(worst('exp', Math.exp, 1e-37, inside)).toBeLessThan(2.5e-7);
    const [low, zero, high] = library.map('exp')(Float32Array.of(-1e30, 0, 88));
    expect(low).toBeLessThan(1.3e-38);
    expect(zero).toBe(1);
    expect(high! / Math.exp(88)).toBeCloseTo(1, 6);
  });

  it('has tanh, SiLU and GELU to float precision', () => {
    expect(worst('tanh', Math.tanh, 1)).toBeLessThan(3e-7);
    expect(worst('silu', (x) => x / (1 + Math.exp(-x)), 1)).toBeLessThan(5e-7);
    const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
    expect(worst('gelu', gelu, 1)).toBeLessThan(5e-7);
  });

  it('rounds to bf16 as the rest of the program does', () => {
    const x = Float32Array.from({ length: 4096 }, (_, i) => Math.fround(Math.tan(i) * 10 ** ((i % 60) - 30)));
    const special = Float32Array.of(0, -0, Infinity, -Infinity, 3.4e38, 1e-45, 1.00390625, 1.01171875);
    for (const values of [x, special]) expect(library.bf16(values)).toEqual(f32ToBf16Array(values));
  });

  const settings: readonly (readonly [string, Choice['settings']])[] = [
    ['greedy', [0, 0, 1, 0, 1]],
    ['greedy with a penalty', [0, 0, 1, 0, 1.7]],
    ['temperature', [0.8, 0, 1, 0, 1]],
    ['a high temperature', [5, 0, 1, 0, 1]],
    ['top-k', [1, 7, 1, 0, 1]],
    ['top-k of one', [1, 1, 1, 0, 1]],
    ['top-k beyond the vocabulary', [1, 100_000, 1, 0, 1]],
    ['top-p', [1, 0, 0.7, 0, 1]],
    ['a tiny top-p', [1, 0, 1e-6, 0, 1]],
    ['top-p of nearly all', [1, 0, 0.999, 0, 1]],
    ['top-k and top-p', [1.2, 12, 0.8, 0, 1]],
    ['min-p', [1, 0, 1, 0.05, 1]],
    ['min-p of one', [1, 0, 1, 1, 1]],
    ['greedy with what was made less likely', [0, 0, 1, 0, 1, 1.5, 0.75, 12]],
    ['a frequency penalty', [0.9, 0, 1, 0, 1, 0, 2.5, 3]],
    ['a reward for presence', [0.9, 0, 1, 0, 1, -1.25, 0, 0]],
    ['everything', [1.3, 30, 0.9, 0.02, 1.3, 0.5, 0.25, 5]],
  ];

  it.each(settings)('chooses as ops/sample.ts does: %s', (_, values) => {
    for (const [vocab, steps] of [
      [1, 0],
      [17, 2],
      [64, 4],
      [331, 0],
      [1000, 2],
    ] as const) {
      for (let seed = 1; seed <= 12; seed++) {
        const history = Array.from({ length: 20 }, (_, i) => (i * 7 * seed) % vocab);
        const choice: Choice = {
          logits: noisyLogits(vocab, seed, steps),
          history,
          settings: values,
          seed: [seed, -seed],
        };
        expect(library.choose(choice), `vocabulary ${vocab}, seed ${seed}`).toBe(expectedToken(choice));
      }
    }
  });

  it('chooses from a large vocabulary', () => {
    const logits = noisyLogits(150_000, 3);
    for (const [name, values] of settings) {
      const choice: Choice = { logits: logits.slice(), history: [1, 2, 3], settings: values, seed: [9, 1] };
      expect(library.choose({ ...choice, logits }), name).toBe(expectedToken(choice));
    }
  });

  it('adds biases and obeys masks as ops/sample.ts does', () => {
    for (const [name, values] of settings) {
      for (let seed = 1; seed <= 6; seed++) {
        const vocab = 97;
        const history = Array.from({ length: 20 }, (_, i) => (i * 7 * seed) % vocab);
        const bias = [0, 40, 96].map((token, i) => [(token + seed) % vocab, 6 * i - 5.5] as const);
        const allowed = [...Array(vocab).keys()].filter((token) => (token * 31 + seed) % 5 === 0);
        for (const edits of [{ bias }, { allowed }, { bias, allowed }, { allowed: [seed] }]) {
          const choice: Choice = {
            ...{ logits: noisyLogits(vocab, seed), history, settings: values, seed: [seed, 3] },
            ...edits,
          };
          const token = library.choose(choice);
          expect(token, name).toBe(expectedToken({ ...choice, logits: choice.logits.slice() }));
          if (choice.allowed !== undefined) expect(choice.allowed).toContain(token);
        }
      }
    }
  });

  it('never chooses what is not a number, or impossible', () => {
    for (const [name, values] of settings) {
      for (let seed = 1; seed <= 8; seed++) {
        const logits = noisyLogits(200, seed, 2);
        for (let id = 0; id < 200; id += 3) logits[id] = id % 2 === 0 ? NaN : -Infinity;
        const choice: Choice = { logits, history: [0, 3, 5], settings: values, seed: [seed, 5] };
        const token = library.choose(choice);
        expect(token, name).toBe(expectedToken({ ...choice, logits: logits.slice() }));
        expect(Number.isFinite(logits[token]!), name).toBe(true);
      }
    }
  });

  it('falls back to the first of the best where there is nothing to weigh', () => {
    const cases = [
      [[NaN, NaN, NaN, NaN], 0],
      [[-Infinity, -Infinity, -Infinity], 0],
      [[1, Infinity, Infinity, 2], 1],
      [[NaN, -Infinity, NaN], 1],
    ] as const;
    for (const [name, values] of settings) {
      for (const [logits, expected] of cases) {
        const choice: Choice = { logits: Float32Array.from(logits), history: [], settings: values, seed: [1, 1] };
        const position = { ...choice, history: [2] };
        expect(library.choose(position), `${name}: ${logits.join()}`).toBe(expected);
        expect(expectedToken({ ...position, logits: Float32Array.from(logits) })).toBe(expected);
      }
    }
  });
});
