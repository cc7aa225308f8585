/** Rows of a checkpoint tensor, checked to be finite: as they are stored, or in the format that a program wants. */
import { plainFormat } from '../ir/formats.js';
import type { DType } from '../ir/program.js';
import { encodeWeights } from './encode.js';
import { firstNonFinite, nonFiniteError } from './finite.js';
import { widen, type Weights } from './weights.js';

/** As stored, or converted to what was asked for; bf16z is bf16 until it is packed. @throws CheckpointError */
export function readRows(weights: Weights, source: string, first: number, count: number, dtype: DType): Uint8Array {
  const { dtype: stored } = weights.describe(source);
  const bytes = readFinite(weights, source, first, count);
  return stored === plainFormat(dtype) ? bytes : encodeWeights(widen(bytes, stored), dtype);
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
