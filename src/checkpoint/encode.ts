/** float32 values in the formats that kloop writes weights in; what `widen` reads. */
import type { DType } from '../ir/program.js';
import { unreachable } from '../util/assert.js';
import { f32ToBf16Array, f32ToF16Array } from '../util/float.js';
import { quantizedBytes, quantizeQ4_0, quantizeQ8_0 } from './quantize.js';

/**
 * Rounds values (whole blocks, for a quantized format) to `dtype`, little-endian; the bytes of f32 are the values' own, and
 * bf16z is bf16 until it is packed.
 */
export function encodeWeights(values: Float32Array, dtype: DType): Uint8Array {
  switch (dtype) {
    case 'f32':
      return bytesOfArray(values);
    case 'bf16':
    case 'bf16z':
      return bytesOfArray(f32ToBf16Array(values));
    case 'f16':
      return bytesOfArray(f32ToF16Array(values));
    case 'q8_0':
    case 'q4_0': {
      const blocks = new Uint8Array(quantizedBytes(dtype, values.length));
      (dtype === 'q8_0' ? quantizeQ8_0 : quantizeQ4_0)(values, blocks);
      return blocks;
    }
    case 'i32':
    case 'q4_1':
    case 'q5_0':
    case 'q5_1':
    case 'q4_k':
    case 'q5_k':
    case 'q6_k':
      return unreachable(`weights are never made ${dtype}, only read`);
    default:
      return dtype satisfies never;
  }
}

function bytesOfArray(array: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
