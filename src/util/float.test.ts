import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bf16ToF32Array, f16ToF32Array, f32ToBf16, f32ToBf16Array, f32ToF16, f32ToF16Array } from './float.js';

const all16 = Uint16Array.from({ length: 65_536 }, (_, i) => i);

/** The value of a 16-bit pattern from its definition: sign, exponent, fraction. */
function decode(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits;
  const sign = bits >> 15 === 1 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

/** Nearest pattern by search over all finite patterns of one sign, ties to the even pattern. */
function nearest(x: number, exponentBits: number): number {
  const infinity = (2 ** exponentBits - 1) << (15 - exponentBits);
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(x);
  let low = 0;
  let high = infinity;
  // Values grow with the pattern; infinity stands for the next power of two.
  const top = 2 ** (2 ** (exponentBits - 1));
  const value = (bits: number) => (bits === infinity ? top : decode(bits, exponentBits));
  if (magnitude >= top) return sign | infinity;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (value(middle) <= magnitude) low = middle;
    else high = middle;
  }
  const below = magnitude - value(low);
  const above = value(high) - magnitude;
  const pick = below < above || (below === above && low % 2 === 0) ? low : high;
  return sign | pick;
}

const bitsOf = (x: number): number => new Uint32Array(new Float32Array([x]).buffer)[0]!;
/** Float32 values: any, near the 16-bit patterns, and exactly half-way between two of them. */
const interesting = fc.oneof(
  fc.float({ noNaN: true }),
  fc.float({ noNaN: true, min: Math.fround(-1e-4), max: Math.fround(1e-4) }),
  fc.constantFrom(65_503, 65_504, 65_519, 65_520, 65_521, 2 ** -25, 2 ** -24 * 1.5, 2 ** -14, 2 ** -149),
  fc
    .tuple(fc.nat(0x7bfe), fc.integer({ min: -1, max: 1 }), fc.constantFrom(5, 8))
    .map(([pattern, step, exponentBits]) => {
      const middle = (decode(pattern, exponentBits) + decode(pattern + 1, exponentBits)) / 2;
      return new Float32Array(Uint32Array.of(bitsOf(middle) + step).buffer)[0]!;
    }),
);

describe.each([
  ['bf16', 8, bf16ToF32Array, f32ToBf16, f32ToBf16Array],
  ['f16', 5, f16ToF32Array, f32ToF16, f32ToF16Array],
] as const)('%s', (_, exponentBits, widen, narrow, narrowArray) => {
  it('widens every pattern to its definition, and back', () => {
    const wide = widen(all16);
    const back = narrowArray(wide);
    for (const bits of all16) {
      expect(Object.is(wide[bits], decode(bits, exponentBits))).toBe(true);
      if (Number.isNaN(wide[bits])) expect(decode(back[bits]!, exponentBits)).toBeNaN();
      else expect(back[bits]).toBe(bits);
    }
  });

  it('rounds to the nearest pattern, ties to even', () => {
    fc.assert(
      fc.property(interesting, (x) => {
        expect(narrow(bitsOf(x))).toBe(nearest(x, exponentBits));
      }),
      { numRuns: 5000 },
    );
  });

  it('keeps NaN whatever its payload, and the signs of zero and infinity', () => {
    for (const bits of [0x7f800001, 0xff800001, 0x7fffffff, 0x7fc00000]) {
      expect(decode(narrow(bits), exponentBits)).toBeNaN();
      expect(narrow(bits) >> 15).toBe(bits >>> 31);
    }
    for (const x of [-0, 0, Infinity, -Infinity]) expect(decode(narrow(bitsOf(x)), exponentBits)).toBe(x);
  });
});
