/** Rows of a checkpoint tensor, checked to be finite: as they are stored, or in the format that a program wants. */
import { plainFormat } from '../ir/formats.js';
import type { DType } from '../ir/program.js';
import { show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import { encodeWeights } from './encode.js';
import { firstNonFinite, nonFiniteError } from './finite.js';
import { widen, type Weights } from './weights.js';

/** As stored, or converted to what was asked for; bf16z is bf16 until it is packed. @throws CheckpointError */
export function readRows(weights: Weights, source: string, first: number, count: number, dtype: DType): Uint8Array {
  const { dtype: stored } = weights.describe(source);
  const bytes = readFinite(weights, source, first, count);
  const format = plainFormat(dtype);
  if (stored === format) return bytes;
  const encoded = encodeWeights(widen(bytes, stored), format);
  if (format !== 'i32' && firstNonFinite(encoded, format) >= 0) {
    throw new CheckpointError(weights.path, `tensor ${show(source)} has numbers too large for ${format}`, {
      hint: 'choose a format of a larger range with --quant, such as bf16 or f32',
    });
  }
  return encoded;
}

/** The same rows, widened to float32. @throws CheckpointError */
export function readRowsF32(weights: Weights, source: string, first: number, count: number): Float32Array {
  return widen(readFinite(weights, source, first, count), weights.describe(source).dtype);
}

function readFinite(weights: Weights, source: string, first: number, count: number): Uint8Array {
  const { dtype, shape } = weights.describe(source);
  const bytes = weights.read(source, first, count);
  const bad = firstNonFinite(bytes, dtype);
  if (bad >= 0) {
    const perRow = shape.slice(1).reduce((product, dim) => product * dim, 1);
    throw nonFiniteError(weights, source, first * perRow + bad);
  }
  return bytes;
}
