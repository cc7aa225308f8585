/** Data for random programs: a pure function of names and a seed, so that every run of a program can have the same. */
import type { LoadWeight } from '../src/ir/interpret.js';
import { sliceShard } from '../src/ir/machine-values.js';
import type { Name, Program } from '../src/ir/program.js';
import type { Extents } from '../src/ir/tensor.js';
import { allowedWords, maxBiasedTokens, settingsPerSample } from '../src/ops/sample.js';
import { assert } from '../src/util/assert.js';
import { bf16ToF32Array, f32ToBf16Array } from '../src/util/float.js';
import { philox4x32 } from '../src/util/prng.js';

/** A number in [0, 1) for the words of a counter and a seed. */
function random(seed: number, ...words: readonly number[]): number {
  const [a = 0, b = 0, c = 0] = words;
  return philox4x32([a >>> 0, b >>> 0, c >>> 0, 0], [seed >>> 0, 0])[0] / 2 ** 32;
}

function hash(text: string): number {
  let value = 0;
  for (const char of text) value = (Math.imul(value, 31) + char.charCodeAt(0)) | 0;
  return value;
}

/** Weights in [-1, 1) that bf16 can hold. Rows and shards of a tensor are parts of the same whole. */
export function randomWeights(seed: number): LoadWeight {
  return ({ tensor, origin }, socket) => {
    assert(origin.kind === 'checkpoint', 'only checkpoint values are loaded');
    const { shard } = origin;
    const whole = (tensor.shape as number[]).map((size, axis) => (axis === shard?.axis ? size * shard.parts : size));
    const width = whole.slice(1).reduce((product, size) => product * size, 1);
    const first = (origin.rows?.first ?? 0) * width;
    const id = hash(origin.tensor);
    const full = Float32Array.from({ length: whole[0]! * width }, (_, i) => 2 * random(seed, id, first + i) - 1);
    const values = bf16ToF32Array(f32ToBf16Array(full));
    return shard === undefined ? values : sliceShard(values, whole, shard, socket);
  };
}

export interface RandomInputs {
  readonly inputs: Map<Name, Float32Array | Int32Array>;
  readonly extents: Extents;
}

/**
 * Inputs of one step. Rows continue the slots in turn, `step` after `step`; some are idle.
 * `decode`: every row is a sample, as it must be where tokens follow each other without the host.
 */
export function randomInputs(
  program: Program,
  seed: number,
  { step = 0, decode = false }: { step?: number; decode?: boolean } = {},
): RandomInputs {
  const { limits } = program;
  const draw = (...words: number[]): number => random(seed, step, ...words);
  const most = decode ? Math.min(limits.rows, limits.samples, limits.slots) : limits.rows;
  const rows = 1 + Math.floor(draw(1) * most);
  const samples = decode ? rows : Math.min(rows, 1 + Math.floor(draw(2) * limits.samples));
  const vocab = program.values.find(({ name }) => name === 'logits')?.tensor.shape.at(-1);
  assert(typeof vocab === 'number', 'a random program has logits');
  const upTo = (count: number, at: number, what: number): number => Math.floor(draw(what, at) * count);
  const of = (length: number, make: (at: number) => number): Int32Array =>
    Int32Array.from({ length }, (_, at) => make(at));
  const perStep = Math.ceil(limits.rows / limits.slots);
  const position = (row: number): number => step * perStep + Math.floor(row / limits.slots);
  const settings = new Float32Array(samples * settingsPerSample);
  for (let s = 0; s < samples; s++) {
    const greedy = draw(8, s) < 0.3;
    settings.set(
      [greedy ? 0 : 0.5 + draw(9, s), upTo(4, s, 10), 1 - 0.3 * draw(11, s), 0.1 * draw(12, s), 1.1],
      s * settingsPerSample,
    );
  }
  const inputs = new Map<Name, Float32Array | Int32Array>([
    ['tokens', of(rows, (row) => upTo(vocab, row, 3))],
    ['positions', of(rows, (row) => (draw(4, row) < 0.15 ? -1 : position(row)))],
    ['slots', of(rows, (row) => row % limits.slots)],
    ['index', of(samples, (s) => (decode ? s : upTo(rows, s, 5)))],
    ['remaining', of(samples, (s) => 1 + upTo(6, s, 6))],
    ['done', of(samples, (s) => (draw(7, s) < 0.1 ? 1 : 0))],
    ['seeds', of(samples * 2, (at) => upTo(2 ** 31, at, 13))],
    ['stop_tokens', of(16, (at) => (at === 0 ? upTo(vocab, 0, 14) : -1))],
    ['settings', settings],
  ]);
  if (program.values.some(({ name }) => name === 'biased')) {
    const words = allowedWords(vocab);
    const count = (s: number): number => Math.min(vocab, upTo(4, s, 15));
    for (let s = 0; s < samples; s++) settings.set([count(s), draw(16, s) < 0.3 ? 1 : 0], s * settingsPerSample + 8);
    // Neighbours, so that they are different ones.
    const biased = of(samples * maxBiasedTokens, (at) => {
      const s = Math.floor(at / maxBiasedTokens);
      return (upTo(vocab, s, 17) + (at % maxBiasedTokens)) % vocab;
    });
    inputs.set('biased', biased);
    inputs.set(
      'biases',
      Float32Array.from(biased, (_, at) => 8 * draw(18, at) - 4),
    );
    // The first token is always allowed.
    inputs.set(
      'allowed',
      of(samples * words, (at) => upTo(2 ** 31, at, 19) | (at % words === 0 ? 1 : 0)),
    );
  }
  return { inputs, extents: { rows, samples } };
}
