/**
 * Attention by itself, on every instruction set that this machine runs and in every format of the KV cache: against a
 * float64 computation from the same cache, and bit for bit against itself however the work is divided.
 */
import koffi from 'koffi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workspace } from '../../../tests/support/models.js';
import { seededRandom } from '../../../tests/support/random-blocks.js';
import { dequantize } from '../../checkpoint/dequantize.js';
import { quantizeQ8_0, quantizedBytes } from '../../checkpoint/quantize.js';
import { bytesOf } from '../../ir/tensor.js';
import { bf16ToF32Array, f16ToF32Array, f32ToBf16Array } from '../../util/float.js';
import { usableInstructionSets } from './instruction-set.js';
import { compileLibrary, findCompiler } from './toolchain.js';

const formats = ['f32', 'bf16', 'q8_0'] as const;
type Format = (typeof formats)[number];
type Library = ReturnType<typeof koffi.load>;

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly block: number;
  /** Positions that are fed. */
  readonly length: number;
  readonly window?: number;
  readonly softcap?: number;
}

interface Division {
  /** Rows of a step. */
  readonly rows: number;
  readonly parts: number;
  readonly backwards?: boolean;
}

/** A sequence in one slot of two, with an idle row in every step. */
class Sequence {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;

  constructor(readonly shape: Shape) {
    const random = seededRandom(shape.length * 31 + shape.heads);
    const noise = (length: number, size: number): Float32Array =>
      Float32Array.from({ length }, () => (random() + random() - 1) * size);
    const { heads, kvHeads, headDim, length } = shape;
    this.q = noise(length * heads * headDim, 4);
    this.k = noise(length * kvHeads * headDim, 4);
    this.v = noise(length * kvHeads * headDim, 1);
  }

  get scale(): number {
    return 1 / Math.sqrt(this.shape.headDim);
  }

  /** y of all positions, computed by the kernels. */
  run(library: Library, format: Format, { rows, parts, backwards = false }: Division): Float32Array {
    const { heads, kvHeads, headDim, block, length, window = 0, softcap = 0 } = this.shape;
    const signature = `void step_${format}_${headDim}x${heads / kvHeads}(int32_t *numbers, float scale, float softcap, float *y, float *q, float *k, float *v, int32_t *slots, int32_t *positions, uint8_t *keys, uint8_t *values, uint8_t *arena)`;
    const step = library.func(signature) as (...values: unknown[]) => void;
    const context = Math.ceil((length + 3) / 16) * 16;
    // What was never written is not a number in any format.
    const cache = (): Uint8Array => new Uint8Array(2 * bytesOf(format, kvHeads * context * headDim)).fill(0xff);
    const [keys, values] = [cache(), cache()];
    const waiting = (rows + 1) * heads * Math.ceil(context / block) * (headDim + 2) * 4;
    const arena = new Uint8Array(4096 + waiting);
    const all = new Float32Array(length * heads * headDim);
    for (let from = 0, stage = 1; from < length; from += rows, stage += 1) {
      const count = Math.min(rows, length - from);
      const positions = Int32Array.from({ length: count + 1 }, (_, row) => (row === 0 ? -1 : from + row - 1));
      const part = (x: Float32Array): Float32Array => {
        const width = x.length / length;
        return Float32Array.from([
          ...new Float32Array(width).fill(9),
          ...x.subarray(from * width, (from + count) * width),
        ]);
      };
      const numbers = [count + 1, heads, kvHeads, headDim, context, block, window, parts, backwards ? 1 : 0, stage];
      const y = new Float32Array((count + 1) * heads * headDim).fill(NaN);
      const rest = [part(this.q), part(this.k), part(this.v), new Int32Array(count + 1).fill(1), positions];
      step(Int32Array.from(numbers), this.scale, softcap, y, ...rest, keys, values, arena);
      const width = heads * headDim;
      expect(y.subarray(0, width).every((value) => value === 0)).toBe(true);
      all.set(y.subarray(width), from * width);
    }
    return all;
  }

  /**
   * The same in float64, from what the format keeps. Products of bfloat16 take queries and weights of positions that are
   * rounded to it: weights as they are beside the largest of their block. A cache in q8_0 takes queries in int8, and products of
   * weights and scales in steps of a 32767th of the largest of their block and 32 dimensions.
   */
  expected(format: Format, { products }: { readonly products: boolean }): Float64Array {
    const { heads, kvHeads, headDim, block, length, window = 0, softcap = 0 } = this.shape;
    const [keys, values] = [kept(this.k, format), kept(this.v, format)];
    const scales = format === 'q8_0' ? scalesOf(this.v) : undefined;
    const q = format === 'q8_0' ? inInt8(this.q) : products ? kept(this.q, 'bf16') : this.q;
    const y = new Float64Array(length * heads * headDim);
    for (let position = 0; position < length; position++) {
      for (let head = 0; head < heads; head++) {
        const first = window > 0 ? Math.max(0, position - window + 1) : 0;
        const kvHead = Math.floor(head / (heads / kvHeads));
        const at = (position * heads + head) * headDim;
        const scores = [];
        for (let p = first; p <= position; p++) {
          let dot = 0;
          for (let i = 0; i < headDim; i++) dot += q[at + i]! * keys[(p * kvHeads + kvHead) * headDim + i]!;
          const score = dot * this.scale;
          scores.push(softcap > 0 ? softcap * Math.tanh(score / softcap) : score);
        }
        const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
        const blockOf = (p: number): number => Math.floor((first + p) / block);
        const largest = new Map<number, number>();
        scores.forEach((score, p) => largest.set(blockOf(p), Math.max(score, largest.get(blockOf(p)) ?? -Infinity)));
        const beside = scores.map((score, p) => Math.exp(score - largest.get(blockOf(p))!));
        const row = (p: number): number => ((first + p) * kvHeads + kvHead) * headDim;
        for (let i = 0; i < headDim; i++) {
          const scaleAt = (p: number): number => scales?.[Math.floor((row(p) + i) / 32)] ?? 1;
          const steps = new Map<number, number>();
          beside.forEach((weight, p) => {
            steps.set(blockOf(p), Math.max((weight * scaleAt(p)) / 32767, steps.get(blockOf(p)) ?? 0));
          });
          beside.forEach((exact, p) => {
            const step = steps.get(blockOf(p))! / scaleAt(p);
            const rounded = products ? kept(Float32Array.of(exact), 'bf16')[0]! : exact;
            const weight = scales === undefined ? rounded : Math.round(exact / step) * step;
            y[at + i]! += (weight / total) * Math.exp(largest.get(blockOf(p))!) * values[row(p) + i]!;
          });
        }
      }
    }
    return y;
  }
}

function kept(x: Float32Array, format: Format): Float32Array {
  if (format === 'f32') return x;
  if (format === 'bf16') return bf16ToF32Array(f32ToBf16Array(x));
  const blocks = new Uint8Array(quantizedBytes('q8_0', x.length));
  quantizeQ8_0(x, blocks);
  const result = new Float32Array(x.length);
  dequantize('q8_0', blocks, result);
  return result;
}

/** Of every block of 32 in q8_0. */
function scalesOf(x: Float32Array): number[] {
  const stored = new Uint8Array(quantizedBytes('q8_0', x.length));
  quantizeQ8_0(x, stored);
  const view = new DataView(stored.buffer);
  return [
    ...f16ToF32Array(Uint16Array.from({ length: x.length / 32 }, (_, block) => view.getUint16(block * 34, true))),
  ];
}

/** Queries as a cache in q8_0 is multiplied with: int8 in blocks of 32, to nearest, and a scale in float32. */
function inInt8(x: Float32Array): Float32Array {
  const result = new Float32Array(x.length);
  for (let block = 0; block < x.length; block += 32) {
    const values = x.subarray(block, block + 32);
    const scale = Math.fround(values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127);
    const inverse = Math.fround(1 / scale);
    result.set(
      values.map((value) => Math.round(Math.fround(value * inverse)) * scale),
      block,
    );
  }
  return result;
}

const shapes: readonly Shape[] = [
  { heads: 1, kvHeads: 1, headDim: 32, block: 16, length: 1 },
  { heads: 3, kvHeads: 1, headDim: 64, block: 32, length: 32 },
  { heads: 3, kvHeads: 1, headDim: 64, block: 32, length: 33 },
  { heads: 2, kvHeads: 2, headDim: 96, block: 16, length: 41 },
  { heads: 10, kvHeads: 2, headDim: 32, block: 48, length: 77, softcap: 5 },
  { heads: 7, kvHeads: 1, headDim: 32, block: 16, length: 50, window: 9 },
  { heads: 6, kvHeads: 3, headDim: 64, block: 32, length: 60, window: 21 },
  { heads: 6, kvHeads: 2, headDim: 8, block: 16, length: 39 },
  { heads: 1, kvHeads: 1, headDim: 80, block: 16, length: 53 },
];

const elements: Readonly<Record<Format, string>> = { f32: 'float', bf16: 'uint16_t', q8_0: 'uint8_t' };

/** All in f32; the other formats only load and store otherwise, which needs fewer shapes, of whole blocks. */
function shapesFor(format: Format): readonly Shape[] {
  return format === 'f32' ? shapes : shapes.slice(1, 5);
}

const instances = new Set(
  formats.flatMap((format) =>
    shapesFor(format).map(
      ({ heads, kvHeads, headDim }) => `TEST(${format}, ${elements[format]}, ${headDim}, ${heads / kvHeads})`,
    ),
  ),
);

const source = `#include KLOOP_SIMD
#include "engine.h"
#include "attention.h"
static const struct call *const programs[] = {NULL};
#define KLOOP_ARENA_BYTES 0ull
#define KLOOP_OWN_BYTES 0ull
#define KLOOP_WEIGHT_BYTES 0ull
#include "library.h"
struct numbers { int32_t rows, heads, kv_heads, head_dim, context, block, window, parts, backwards, stage; };
#define TEST(dtype, element, dim, group) \\
  DEFINE_ATTENTION(dtype, element, dim, group) \\
  EXPORT void step_##dtype##_##dim##x##group(const int32_t *raw, float scale, float softcap, float *y, const float *q, const float *k, \\
                           const float *v, const int32_t *slots, const int32_t *positions, uint8_t *keys, uint8_t *values, \\
                           uint8_t *arena) { \\
    static struct engine e; \\
    struct numbers n; \\
    memcpy(&n, raw, sizeof n); \\
    e.arena = arena; \\
    struct worker me = {.engine = &e, .stage = (uint64_t)n.stage, .own = malloc(1 << 20)}; \\
    memset(me.own, 0x5b, 1 << 20); \\
    struct attention_shape a = {n.heads, n.kv_heads, n.head_dim, n.context, scale, softcap, n.window, n.block, 0, 1 << 19, \\
                                3 << 18, 4096, 0}; \\
    for (int i = 0; i < n.parts * n.kv_heads; ++i) { \\
      const int chunk = n.backwards ? n.parts * n.kv_heads - 1 - i : i; \\
      const int head = chunk / n.parts; \\
      struct attention_unit unit = {{head, head + 1}, chunk % n.parts, n.parts}; \\
      dtype##_append_kv((element *)keys, (element *)values, k, v, slots, positions, n.rows, n.kv_heads, n.head_dim, \\
                        n.context, n.block, unit); \\
      dtype##_attention_##dim##x##group(&me, y, q, (element *)keys, (element *)values, slots, positions, n.rows, a, unit); \\
    } \\
    free(me.own); \\
  }
${[...instances].join('\n')}
EXPORT int parts_of(int threads, int kv_heads, int blocks) {
  static struct engine e;
  e.threads = threads;
  struct worker me = {.engine = &e};
  return context_parts(&me, kv_heads, blocks);
}
`;

const hasCompiler = (await findCompiler()) !== undefined;
const usable = usableInstructionSets();
const workspace = new Workspace();
afterAll(() => workspace.remove());

describe.runIf(hasCompiler).each(usable.map((set) => [set.name, set] as const))('attention on %s', (_, set) => {
  let library: Library;
  beforeAll(async () => {
    const request = { source, instructionSet: set, cacheDir: workspace.cacheDir, compiler: (await findCompiler())! };
    library = koffi.load(await compileLibrary(request));
  }, 120_000);

  describe.each(formats)('from a cache in %s', (format) => {
    it.each(shapesFor(format))(
      '$heads heads on $kvHeads of $headDim, $length positions in blocks of $block',
      (shape) => {
        const sequence = new Sequence(shape);
        const products = set.float32 !== undefined && format === 'bf16';
        const expected = sequence.expected(format, { products });
        const actual = sequence.run(library, format, { rows: 7, parts: 1 });
        const errors = actual.map((value, i) => Math.abs(value - expected[i]!)).sort();
        // A weight that is between two numbers of bfloat16, or two steps, may be rounded to the other one from float32: seldom.
        const most = products ? 1e-3 : format === 'q8_0' ? 1e-4 : 2e-6;
        expect(errors[Math.floor(errors.length * (most > 2e-6 ? 0.9 : 1)) - 1]).toBeLessThan(2e-6);
        expect(errors.at(-1)).toBeLessThan(most);
        const divisions: readonly Division[] = [
          { rows: 1, parts: 1 },
          { rows: 1, parts: 2 },
          { rows: 1, parts: 5, backwards: true },
          { rows: 7, parts: 2, backwards: true },
          { rows: 20, parts: 3 },
          { rows: 5, parts: 8, backwards: true },
        ];
        for (const division of divisions) {
          const same = Buffer.from(sequence.run(library, format, division).buffer).equals(Buffer.from(actual.buffer));
          expect(same, JSON.stringify(division)).toBe(true);
        }
      },
    );
  });

  it('cuts heads so that workers get equally many units, and never finer than blocks', () => {
    const partsOf = library.func('int parts_of(int threads, int kv_heads, int blocks)') as (
      ...numbers: number[]
    ) => number;
    expect(partsOf(1, 3, 16)).toBe(1);
    expect(partsOf(2, 3, 16)).toBe(2);
    expect(partsOf(8, 3, 16)).toBe(8);
    expect(partsOf(8, 2, 16)).toBe(4);
    expect(partsOf(8, 1, 5)).toBe(5);
    expect(partsOf(6, 4, 16)).toBe(3);
    // Chunks are counted in 12 bits.
    expect(partsOf(255, 1024, 4096)).toBe(3);
  });
});
