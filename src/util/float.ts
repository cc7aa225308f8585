/**
 * Conversions between float32 and the 16-bit formats of weights, on bit patterns: bfloat16 (the upper half of a
 * float32) and IEEE 754 binary16. Narrowing rounds to nearest, ties to even; NaN stays NaN and infinities stay.
 * Assumes a little-endian host, as every platform of Node is.
 */

/** Widens bfloat16 bit patterns; exact. */
export function bf16ToF32Array(source: Uint16Array): Float32Array {
  const bits = new Uint32Array(source.length);
  for (let i = 0; i < source.length; i += 1) bits[i] = source[i]! << 16;
  return new Float32Array(bits.buffer);
}

/** Widens binary16 bit patterns; exact, subnormals included. */
export function f16ToF32Array(source: Uint16Array): Float32Array {
  const bits = new Uint32Array(source.length);
  const values = new Float32Array(bits.buffer);
  for (let i = 0; i < source.length; i += 1) {
    const half = source[i]!;
    const magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) {
      bits[i] = ((half & 0x8000) << 16) | 0x7f800000 | ((half & 0x3ff) << 13);
    } else {
      // The 5-bit exponent read as an 8-bit one is short by the difference of the biases, 127 - 15.
      bits[i] = ((half & 0x8000) << 16) | (magnitude << 13);
      values[i] = values[i]! * 2 ** 112;
    }
  }
  return values;
}

/** The bfloat16 bit pattern nearest to a float32 bit pattern. */
export function f32ToBf16(bits: number): number {
  const magnitude = bits & 0x7fffffff;
  // A NaN whose payload sits in the lower half would round to infinity.
  if (magnitude > 0x7f800000) return ((bits >>> 16) & 0xffff) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The binary16 bit pattern nearest to a float32 bit pattern. */
export function f32ToF16(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  // From 65520 on, halfway above the largest finite value, everything is infinite.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  // Subnormal: the significand in units of 2^-24.
  const shift = 126 - (magnitude >>> 23);
  if (shift > 24) return sign;
  const significand = (magnitude & 0x7fffff) | 0x800000;
  const quotient = significand >>> shift;
  const rest = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (quotient + (rest > half || (rest === half && (quotient & 1) === 1) ? 1 : 0));
}

/** Rounds float32 values to bfloat16 bit patterns. */
export function f32ToBf16Array(source: Float32Array): Uint16Array {
  return narrow(source, f32ToBf16);
}

/** Rounds float32 values to binary16 bit patterns. */
export function f32ToF16Array(source: Float32Array): Uint16Array {
  return narrow(source, f32ToF16);
}

function narrow(source: Float32Array, convert: (bits: number) => number): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const result = new Uint16Array(source.length);
  for (let i = 0; i < bits.length; i += 1) result[i] = convert(bits[i]!);
  return result;
}
