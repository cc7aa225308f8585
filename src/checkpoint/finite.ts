/**
 * Finds NaN and infinities in weights. A single one spreads over every token, so packing refuses them with the place.
 * Looks at exponents only: all bits set means not finite, in every format.
 */
import { blockOf, isQuantized, type QuantizedDType } from '../ir/formats.js';
import { show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import { scaleOffsets } from './dequantize.js';
import type { StoredDtype, Weights } from './weights.js';

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
