/**
 * Finds NaN and infinities in weights. A single one spreads over every token, so packing refuses them with the place.
 * Looks at exponents only: all bits set means not finite, in every format.
 */
import { blockOf, isQuantized, type QuantizedDType } from '../ir/formats.js';
import { show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import { scaleOffsets } from './dequantize.js';
import type { StoredDtype, Weights } from './weights.js';

/** Elements examined per read, about. */
const chunkElements = 1 << 20;

/** Index of the first element that is not finite, or -1. `bytes` are little-endian and aligned to their element. */
export function firstNonFinite(bytes: Uint8Array, dtype: StoredDtype): number {
  if (isQuantized(dtype)) return firstBrokenBlock(bytes, dtype);
  if (dtype === 'f32') {
    const bits = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < bits.length; i += 1) if ((bits[i]! & 0x7f800000) === 0x7f800000) return i;
    return -1;
  }
  const mask = dtype === 'f16' ? 0x7c00 : 0x7f80;
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  for (let i = 0; i < bits.length; i += 1) if ((bits[i]! & mask) === mask) return i;
  return -1;
}

/** The first element of the first block with a scale that is not finite. */
function firstBrokenBlock(bytes: Uint8Array, format: QuantizedDType): number {
  const block = blockOf(format);
  const upperBytes = scaleOffsets(format).map((offset) => offset + 1);
  for (let at = 0; at < bytes.length; at += block.bytes) {
    if (upperBytes.some((offset) => (bytes[at + offset]! & 0x7c) === 0x7c)) return (at / block.bytes) * block.elements;
  }
  return -1;
}

/** The error for a tensor whose element `index` (counted over the whole tensor) is not finite. */
export function nonFiniteError(weights: Weights, name: string, index: number): CheckpointError {
  return new CheckpointError(weights.path, `tensor ${show(name)} is not finite at element ${index}`, {
    hint: 'the checkpoint is broken: download it again',
  });
}

/** Reads a tensor in pieces and throws CheckpointError with the first element that is NaN or infinite. */
export function findNonFinite(weights: Weights, name: string): void {
  const { shape, dtype } = weights.describe(name);
  const rows = shape[0] ?? 1;
  const rowElements = shape.slice(1).reduce((product, size) => product * size, 1);
  const step = Math.max(1, Math.floor(chunkElements / Math.max(1, rowElements)));
  for (let row = 0; row < rows; row += step) {
    const bytes = weights.read(name, row, Math.min(step, rows - row));
    const index = firstNonFinite(bytes, dtype);
    if (index >= 0) throw nonFiniteError(weights, name, row * rowElements + index);
    if (bytes.length > 0) continue;
    // A tensor without elements may claim any number of rows.
    return;
  }
}
