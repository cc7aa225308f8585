/**
 * Matrices of every format on the stand-in of the machine, against float64 sums of the weights that are stored. Inputs of
 * quantized matrices are multiples of a power of two, up to 127, so that making them int8 changes nothing, and what is left
 * is the rounding of float32 sums.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hostFlags, hostSource } from '../../../tests/support/cuda/fake-driver.js';
import { Workspace } from '../../../tests/support/models.js';
import { randomBlocks, seededRandom } from '../../../tests/support/random-blocks.js';
import { dequantize } from '../../checkpoint/dequantize.js';
import { packTiles } from '../../checkpoint/tiles.js';
import { isQuantized } from '../../ir/formats.js';
import { f32ToBf16Array, bf16ToF32Array } from '../../util/float.js';
import { preamble } from './emit/program.js';
import { hostTarget, layoutFor } from './target.js';

const formats = ['f32', 'bf16', 'q8_0', 'q4_0'] as const;
type Format = (typeof formats)[number];
type Kernel = (...values: unknown[]) => number;

const workspace = new Workspace();
afterAll(() => workspace.remove());

let linear: ReadonlyMap<Format, Kernel>;
let embed: ReadonlyMap<Format, Kernel>;

beforeAll(() => {
  const run = readFileSync(join(import.meta.dirname, '../../../tests/support/cuda/linear_run.h'), 'utf8');
  const headers = ['ring.cuh', 'float_tiles.cuh', 'block_tiles.cuh', 'linear.cuh'];
  const source = `${preamble({ ...layoutFor(hostTarget, []), wideRows: 64 }, 1 << 20)}${headers.map((name) => `#include "${name}"\n`).join('')}`;
  const [input, library] = [join(workspace.directory, 'linear.cpp'), join(workspace.directory, 'linear.so')];
  writeFileSync(input, `${hostSource(source)}${run.replace('#pragma once\n', '')}`);
  execFileSync('g++', [...hostFlags, '-o', library, input]);
  const loaded = koffi.load(library);
  const shape = 'float *y, const float *x, const uint8_t *weight, const float *bias, int rows, int in, int out';
  linear = new Map(
    formats.map((format) => [
      format,
      loaded.func(`int linear_${format}(${shape}, int first, int last, int blocks)`) as Kernel,
    ]),
  );
  embed = new Map(
    formats.map((format) => [
      format,
      loaded.func(
        `int embed_${format}(float *y, const int32_t *tokens, const uint8_t *table, int rows, int width)`,
      ) as Kernel,
    ]),
  );
}, 120_000);

interface Matrix {
  readonly packed: Uint8Array;
  readonly weights: Float32Array;
}

function matrix(format: Format, out: number, width: number, random: () => number): Matrix {
  if (isQuantized(format)) {
    const stored = randomBlocks(format, (out * width) / 32, random);
    const weights = new Float32Array(out * width);
    dequantize(format, stored, weights);
    return { packed: packTiles(stored, out, width, format), weights };
  }
  const full = Float32Array.from({ length: out * width }, () => random() - 0.5);
  const rounded = f32ToBf16Array(full);
  const [stored, weights] = format === 'f32' ? [full, full] : [rounded, bf16ToF32Array(rounded)];
  return { packed: packTiles(new Uint8Array(stored.buffer), out, width, format), weights };
}

/** In every block of 32, one input is 127 steps. */
function inputs(rows: number, width: number, random: () => number): Float32Array {
  return Float32Array.from({ length: rows * width }, (_, i) => {
    const step = 2 ** -(4 + (Math.floor(i / 32) % 5));
    return step * (i % 32 === 7 ? 127 : Math.floor(random() * 255) - 127);
  });
}

interface Shape {
  readonly rows: number;
  readonly width: number;
  readonly out: number;
  readonly bias?: boolean;
}

/** Largest error of y = x . weights + bias, relative to the sizes of what is summed up. */
function worstError(
  y: Float32Array,
  x: Float32Array,
  weights: Float32Array,
  bias: Float32Array | null,
  { out, width }: Shape,
): number {
  return y.reduce((worst, value, i) => {
    const [row, feature] = [Math.floor(i / out), i % out];
    let sum = bias?.[feature] ?? 0;
    let size = Math.abs(sum) + 1e-30;
    for (let column = 0; column < width; column++) {
      const product = weights[feature * width + column]! * x[row * width + column]!;
      sum += product;
      size += Math.abs(product);
    }
    const error = Math.abs(value - sum) / size;
    return error <= worst ? worst : Number.isNaN(error) ? Infinity : error;
  }, 0);
}

const shapes: readonly Shape[] = [
  { rows: 1, width: 32, out: 1 },
  { rows: 1, width: 96, out: 331, bias: true },
  { rows: 2, width: 64, out: 33 },
  { rows: 7, width: 32, out: 47, bias: true },
  // Two groups of rows, more slices than the ring has slots, inputs that do not fit into shared memory.
  { rows: 11, width: 1056, out: 50 },
  // By tensor cores: just enough rows; odd numbers; a second group of few rows.
  { rows: 16, width: 32, out: 16 },
  { rows: 21, width: 96, out: 331, bias: true },
  { rows: 67, width: 160, out: 40 },
];

describe.each(formats)('%s', (format) => {
  it.each(shapes)('linear: $rows rows of $width, $out outputs', (shape) => {
    const { rows, width, out, bias = false } = shape;
    const random = seededRandom(out + rows);
    const { packed, weights } = matrix(format, out, width, random);
    const x = inputs(rows, width, random);
    const b = bias ? Float32Array.from({ length: out }, () => random() - 0.5) : null;
    const y = new Float32Array(rows * out).fill(NaN);
    expect(linear.get(format)!(y, x, packed, b, rows, width, out, 0, Math.ceil(out / 16), 3)).toBe(0);
    expect(worstError(y, x, weights, b, shape)).toBeLessThan(1e-6);
  });

  it('computes a row alike whatever is beside it, on any number of blocks, and only the tiles it is given', () => {
    const random = seededRandom(5);
    const { packed } = matrix(format, 70, 64, random);
    const x = inputs(5, 64, random);
    const all = new Float32Array(5 * 70);
    linear.get(format)!(all, x, packed, null, 5, 64, 70, 0, 5, 3);
    for (let row = 0; row < 5; row++) {
      const one = new Float32Array(70).fill(-1);
      linear.get(format)!(one, x.slice(row * 64, (row + 1) * 64), packed, null, 1, 64, 70, 1, 4, 1 + (row % 2));
      expect(one.slice(16, 64)).toEqual(all.slice(row * 70 + 16, row * 70 + 64));
      expect([...one.slice(0, 16), ...one.slice(64)].every((value) => value === -1)).toBe(true);
    }
  });

  it('embed: rows of the table', () => {
    const { packed, weights } = matrix(format, 37, 64, seededRandom(9));
    const tokens = Int32Array.of(36, 0, 17, 17);
    const y = new Float32Array(tokens.length * 64);
    expect(embed.get(format)!(y, tokens, packed, tokens.length, 64)).toBe(0);
    expect([...y]).toEqual([...tokens].flatMap((token) => [...weights.subarray(token * 64, (token + 1) * 64)]));
  });
});

describe('rows by tensor cores', () => {
  it.each(['bf16', 'q8_0', 'q4_0'] as const)('%s: are computed alike whatever is beside them', (format) => {
    const random = seededRandom(7);
    const { packed } = matrix(format, 40, 96, random);
    const x = inputs(67, 96, random);
    const all = new Float32Array(67 * 40);
    const part = new Float32Array(16 * 40);
    linear.get(format)!(all, x, packed, null, 67, 96, 40, 0, 3, 3);
    for (const first of [5, 51]) {
      linear.get(format)!(part, x.slice(first * 96, (first + 16) * 96), packed, null, 16, 96, 40, 0, 3, 1);
      expect(part).toEqual(all.slice(first * 40, (first + 16) * 40));
    }
  });

  it.each([45, 46])('bf16: keep sixteen bits of inputs, of an odd number of them too: %i', (width) => {
    const random = seededRandom(width);
    const shape = { rows: 18, width, out: 33 };
    const { packed, weights } = matrix('bf16', shape.out, width, random);
    const x = Float32Array.from({ length: shape.rows * width }, () => random() - 0.5);
    const y = new Float32Array(shape.rows * shape.out).fill(NaN);
    expect(linear.get('bf16')!(y, x, packed, null, shape.rows, width, shape.out, 0, 3, 2)).toBe(0);
    expect(worstError(y, x, weights, null, shape)).toBeLessThan(2 ** -16);
    // One number of bf16 alone would keep eight bits.
    const short = bf16ToF32Array(f32ToBf16Array(x));
    expect(worstError(y, short, weights, null, shape)).toBeGreaterThan(2 ** -14);
  });
});

describe.each(['q8_0', 'q4_0'] as const)('%s, inputs that int8 does not hold', (format) => {
  it('rounds them to 1/254 of the largest of their block, and keeps zeros and the least numbers', () => {
    const random = seededRandom(3);
    const shape = { rows: 3, width: 96, out: 20 };
    const { packed, weights } = matrix(format, shape.out, shape.width, random);
    const x = Float32Array.from({ length: 3 * 96 }, (_, i) =>
      i < 32 ? 0 : i < 64 ? 1e-44 : (random() - 0.5) * 10 ** (Math.floor(i / 32) - 4),
    );
    const y = new Float32Array(3 * 20).fill(NaN);
    expect(linear.get(format)!(y, x, packed, null, 3, 96, 20, 0, 2, 2)).toBe(0);
    const rounded = x.map((value, i) => {
      const block = x.subarray(i - (i % 32), i - (i % 32) + 32);
      const scale = Math.fround(Math.max(...block.map(Math.abs)) / 127);
      const steps = value * (scale > 1e-37 ? 1 / scale : 0);
      return scale * Math.round(steps);
    });
    expect(worstError(y, rounded, weights, null, shape)).toBeLessThan(1e-6);
    expect(worstError(y, x, weights, null, shape)).toBeGreaterThan(1e-5);
  });
});
