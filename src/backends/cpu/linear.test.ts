/**
 * Matrices of every format on every instruction set that this machine runs (with clang the best of them), against float64 sums of the weights that are
 * stored. Inputs are multiples of a power of two, up to 127, so that making them int8 for quantized weights changes nothing
 * and what is left is the rounding of float32 sums.
 */
import koffi from 'koffi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workspace } from '../../../tests/support/models.js';
import { randomBlocks, seededRandom } from '../../../tests/support/random-blocks.js';
import { dequantize } from '../../checkpoint/dequantize.js';
import { isCompressible } from '../../checkpoint/compress.js';
import { encodeWeights } from '../../checkpoint/encode.js';
import { packTiles } from '../../checkpoint/tiles.js';
import { blockOf, dtypes, isQuantized, plainFormat } from '../../ir/formats.js';
import type { DType } from '../../ir/program.js';
import { bf16ToF32Array, f32ToBf16Array } from '../../util/float.js';
import { usableInstructionSets, type InstructionSet } from './instruction-set.js';
import { compileLibrary, findCompiler, type Compiler } from './toolchain.js';

const formats = dtypes.filter((dtype) => dtype !== 'i32');

const source = `#include KLOOP_SIMD
#include "engine.h"
#include "linear_quantized.h"
#include "linear_blocks.h"
static const struct call *const programs[] = {NULL};
#define KLOOP_ARENA_BYTES 0ull
#define KLOOP_OWN_BYTES 0ull
#define KLOOP_WEIGHT_BYTES 0ull
#include "library.h"
#define LINEAR(dtype, make, rows_of_x, ...) \\
  EXPORT void linear_##dtype(float *y, const float *x, const void *weight, const float *bias, int rows, int in, int out, \\
                             int first, int last) { \\
    /* The other form of the rows, and behind it a tile of bf16. */ \\
    const size_t form = ((size_t)rows * ((size_t)in + 1) * 2 + 63) / 64 * 64; \\
    struct worker me = {.own = aligned_alloc(64, form + 64 * (size_t)in)}; \\
    make; \\
    dtype##_linear(&me, y, rows_of_x, weight, bias, rows, in, out, (struct range){first, last} __VA_OPT__(,) __VA_ARGS__); \\
    free(me.own); \\
  } \\
  EXPORT void embed_##dtype(float *y, const int32_t *tokens, const void *table, int rows, int width) { \\
    struct worker me = {0}; \\
    dtype##_embed(&me, y, tokens, table, rows, width, 1.0f, (struct range){0, width}); \\
  }
${formats
  .map((format) =>
    isQuantized(format)
      ? `LINEAR(${format}, quantize_rows(&me, 0, x, rows, in), quantized_at(&me, 0, rows, in))`
      : plainFormat(format) === 'bf16'
        ? `LINEAR(${format}, round_rows(&me, 0, x, rows, in), rounded_at(&me, 0, x)${format === 'bf16z' ? ', me.own + form' : ''})`
        : `LINEAR(${format}, , x)`,
  )
  .join('\n')}
`;

type Linear = (...values: unknown[]) => void;
interface Kernels {
  readonly linear: (format: DType) => Linear;
  readonly embed: (format: DType) => Linear;
}

const workspace = new Workspace();
afterAll(() => workspace.remove());

/**
 * All formats in plain C take a minute to optimize. What optimization may do with simd_generic.h is seen by the tests of
 * attention and of the support kernels; here it only assumes the same of pointers.
 */
const plainC = ['-Og', '-fstrict-aliasing'];

async function load(instructionSet: InstructionSet, compiler: Compiler): Promise<Kernels> {
  const request = {
    source,
    instructionSet,
    cacheDir: workspace.cacheDir,
    compiler,
    extraFlags: instructionSet.name === 'generic' ? plainC : [],
  };
  const library = koffi.load(await compileLibrary(request));
  return {
    linear: (format) =>
      library.func(
        `void linear_${format}(float *y, const float *x, const uint8_t *weight, const float *bias, int rows, int in, int out, int first, int last)`,
      ) as Linear,
    embed: (format) =>
      library.func(
        `void embed_${format}(float *y, const int32_t *tokens, const uint8_t *table, int rows, int width)`,
      ) as Linear,
  };
}

/** Rows of whole blocks; of every block of 32, one input is 127 steps. */
function inputs(rows: number, width: number, random: () => number): Float32Array {
  return Float32Array.from({ length: rows * width }, (_, i) => {
    const step = 2 ** -(4 + (Math.floor(i / 32) % 5));
    return step * (i % 32 === 7 ? 127 : Math.floor(random() * 255) - 127);
  });
}

/** Inputs of a block, or an odd number of them. */
const elementsOf = (format: DType): number => (blockOf(format).elements > 1 ? blockOf(format).elements : 13);

/** A matrix as a checkpoint stores it, and the numbers that it holds. */
function matrix(format: DType, out: number, width: number, random: () => number): [Uint8Array, Float32Array] {
  const weights = new Float32Array(out * width);
  if (isQuantized(format)) {
    const stored = randomBlocks(format, (out * width) / blockOf(format).elements, random);
    dequantize(format, stored, weights);
    return [stored, weights];
  }
  // With so few digits, every format holds them exactly; a few are of another size than the others.
  const scale = (): number => (random() < 0.01 ? 2 ** -Math.floor(random() * 10) : 1);
  weights.forEach((_, i) => (weights[i] = (Math.round(random() * 64 - 32) / 16) * scale()));
  return [encodeWeights(weights, format), weights];
}

interface Shape {
  readonly rows: number;
  readonly blocks: number;
  readonly out: number;
  readonly bias?: boolean;
}

const shapes: readonly Shape[] = [
  { rows: 1, blocks: 1, out: 1 },
  { rows: 1, blocks: 1, out: 16 },
  { rows: 1, blocks: 3, out: 331, bias: true },
  { rows: 2, blocks: 2, out: 33 },
  { rows: 7, blocks: 1, out: 47, bias: true },
  { rows: 9, blocks: 2, out: 331 },
  { rows: 35, blocks: 1, out: 47 },
];

const usable = usableInstructionSets();
const [usual, clang] = await Promise.all([findCompiler(), findCompiler(['clang'])]);
const builds = [
  ...(usual === undefined ? [] : usable.map((set) => [set.name, set, usual] as const)),
  ...(clang === undefined ? [] : [[`${usable[0]!.name}, clang`, usable[0]!, clang] as const]),
];

describe.each(builds)('%s', (_, instructionSet, compiler) => {
  let kernels: Kernels;
  beforeAll(async () => {
    kernels = await load(instructionSet, compiler);
  }, 120_000);

  it('bf16z computes what bf16 does, bit for bit, whatever weights stick out', () => {
    const random = seededRandom(11);
    const [out, width] = [41, 96];
    const bits = Uint16Array.from({ length: out * width }, () => 0x3800 + Math.floor(random() * 0x800));
    // Tile 0: none; tile 1: as many as there is room for, at both ends and side by side; tile 2: a few.
    const scattered = [0, 1, 95, 15 * width, 15 * width + 95, 700, 701, 702, 703, 704, 800];
    const odd = [0x8000, 0x0000, 0x0001, 0x7f7f, 0xff7f, 0x8080, 0x4f12, 0xcf12, 0x2345, 0x0100, 0x5fff];
    scattered.forEach((at, i) => (bits[16 * width + at] = odd[i]!));
    [33 * width + 5, 40 * width + 95].forEach((at) => (bits[at] = 0x9876));
    const data = new Uint8Array(bits.buffer);
    expect(isCompressible(data, out, width)).toBe(true);
    const x = inputs(13, width, random).map((value) => value * 2 ** -80);
    for (const rows of [1, 2, 3, 13]) {
      const [compressed, plain] = (['bf16z', 'bf16'] as const).map((dtype) => {
        const y = new Float32Array(rows * out).fill(NaN);
        const packed = packTiles(data, out, width, dtype);
        kernels.linear(dtype)(y, x.subarray(0, rows * width), packed, null, rows, width, out, 0, 3);
        return y;
      });
      expect(compressed).toEqual(plain);
      expect(compressed!.every(Number.isFinite)).toBe(true);
    }
    const tokens = Int32Array.from({ length: out }, (_, token) => token);
    const [compressed, plain] = (['bf16z', 'bf16'] as const).map((dtype) => {
      const y = new Float32Array(out * width);
      kernels.embed(dtype)(y, tokens, packTiles(data, out, width, dtype), out, width);
      return y;
    });
    expect(compressed).toEqual(plain);
    expect(plain).toEqual(bf16ToF32Array(bits));
  });

  it('rounds inputs of bf16 to bf16 where there are products of it, and nowhere else', () => {
    const random = seededRandom(13);
    const [rows, out, width] = [5, 20, 37];
    const [stored, weights] = matrix('bf16', out, width, random);
    const x = Float32Array.from({ length: rows * width }, () => random() - 0.5);
    const multiplied = instructionSet.float32 !== undefined ? bf16ToF32Array(f32ToBf16Array(x)) : x;
    const y = new Float32Array(rows * out);
    kernels.linear('bf16')(y, x, packTiles(stored, out, width, 'bf16'), null, rows, width, out, 0, 2);
    y.forEach((value, i) => {
      const [row, feature] = [Math.floor(i / out), i % out];
      const products = Array.from(
        { length: width },
        (_, j) => weights[feature * width + j]! * multiplied[row * width + j]!,
      );
      const size = products.reduce((sum, product) => sum + Math.abs(product), 0);
      const sum = products.reduce((a, b) => a + b, 0);
      expect(Math.abs(value - sum) / size, `row ${row}, output ${feature}`).toBeLessThan(1e-6);
    });
  });

  describe.each(formats)('%s', (format) => {
    it.each(shapes)('linear: $rows rows, $blocks blocks, $out outputs', ({ rows, blocks, out, bias = false }) => {
      const random = seededRandom(out + rows);
      const width = blocks * elementsOf(format);
      const [stored, weights] = matrix(format, out, width, random);
      const x = inputs(rows, width, random);
      const b = bias ? Float32Array.from({ length: out }, () => random() - 0.5) : null;
      const y = new Float32Array(rows * out).fill(NaN);
      const packed = packTiles(stored, out, width, format);
      kernels.linear(format)(y, x, packed, b, rows, width, out, 0, Math.ceil(out / 16));
      for (let row = 0; row < rows; row++) {
        for (let feature = 0; feature < out; feature++) {
          let sum = b?.[feature] ?? 0;
          let size = Math.abs(sum) + 1e-30;
          for (let i = 0; i < width; i++) {
            const product = weights[feature * width + i]! * x[row * width + i]!;
            sum += product;
            size += Math.abs(product);
          }
          const error = Math.abs(y[row * out + feature]! - sum) / size;
          expect(error, `row ${row}, output ${feature}`).toBeLessThan(1e-6);
        }
      }
    });

    it('computes a row alike whatever is beside it, and only the tiles it is given', () => {
      const random = seededRandom(5);
      const width = 2 * elementsOf(format);
      const packed = packTiles(matrix(format, 70, width, random)[0], 70, width, format);
      // One row, few and many are computed in different ways.
      const most = 37;
      const x = inputs(most, width, random);
      const alone = Float32Array.from({ length: most * 70 }, () => -1);
      for (let row = 0; row < most; row++) {
        const one = alone.subarray(row * 70, (row + 1) * 70);
        kernels.linear(format)(one, x.slice(row * width, (row + 1) * width), packed, null, 1, width, 70, 1, 4);
        expect([...one.slice(0, 16), ...one.slice(64)].every((value) => value === -1)).toBe(true);
      }
      for (const rows of [3, 6, 13, most]) {
        const y = Float32Array.from({ length: rows * 70 }, () => -1);
        kernels.linear(format)(y, x, packed, null, rows, width, 70, 1, 4);
        expect(y, `${rows} rows`).toEqual(alone.slice(0, rows * 70));
      }
    });

    it('embed: rows of the table', () => {
      const random = seededRandom(9);
      const width = 2 * elementsOf(format);
      const [stored, table] = matrix(format, 37, width, random);
      const tokens = Int32Array.of(36, 0, 17, 17);
      const y = new Float32Array(tokens.length * width);
      kernels.embed(format)(y, tokens, packTiles(stored, 37, width, format), tokens.length, width);
      const expected = [...tokens].flatMap((token) => [...table.subarray(token * width, (token + 1) * width)]);
      // A product may be rounded before the minimum is added.
      y.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-5));
    });
  });
});
