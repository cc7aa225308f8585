/** Rows of a checkpoint tensor in the format that a program wants, checked to be finite. */
import { plainFormat } from '../ir/formats.js';
import type { DType } from '../ir/program.js';
import { encodeWeights } from './encode.js';
import { firstNonFinite, nonFiniteError } from './finite.js';
import type { Weights } from './weights.js';

/** As stored, or converted to what was asked for; bf16z is bf16 until it is packed. @throws CheckpointError */
export function readRows(weights: Weights, source: string, first: number, count: number, dtype: DType): Uint8Array {
  const { dtype: stored, shape } = weights.describe(source);
  const bytes = weights.read(source, first, count);
  const bad = firstNonFinite(bytes, stored);
  if (bad >= 0) {
    const perRow = shape.slice(1).reduce((product, dim) => product * dim, 1);
    throw nonFiniteError(weights, source, first * perRow + bad);
  }
  return stored === plainFormat(dtype) ? bytes : encodeWeights(weights.readF32(source, first, count), dtype);
}
