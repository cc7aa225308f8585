import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { philox4x32, uniform, type Words4 } from './prng.js';

/** The same generator on exact integers, written from the paper. */
function exactPhilox(counter: Words4, key: readonly [number, number]): number[] {
  let [a, b, c, d] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key.map(BigInt) as [bigint, bigint];
  const word = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const p0 = a * 0xd2511f53n;
    const p1 = c * 0xcd9e8d57n;
    [a, b, c, d] = [(p1 >> 32n) ^ b ^ k0, p1 & word, (p0 >> 32n) ^ d ^ k1, p0 & word];
    k0 = (k0 + 0x9e3779b9n) & word;
    k1 = (k1 + 0xbb67ae85n) & word;
  }
  return [a, b, c, d].map(Number);
}

describe('philox4x32', () => {
  it('gives the published known answers', () => {
    const hex = (words: Words4) => words.map((value) => value.toString(16).padStart(8, '0')).join(' ');
    const ones = 0xffffffff;
    expect(hex(philox4x32([0, 0, 0, 0], [0, 0]))).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8');
    expect(hex(philox4x32([ones, ones, ones, ones], [ones, ones]))).toBe('408f276d 41c83b0e a20bc7c6 6d5451fd');
    const counter: Words4 = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
    expect(hex(philox4x32(counter, [0xa4093822, 0x299f31d0]))).toBe('d16cfe09 94fdcceb 5001e420 24126ea1');
  });

  it('agrees with exact integers', () => {
    const word = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(fc.tuple(word, word, word, word), fc.tuple(word, word), (counter, key) => {
        expect(philox4x32(counter, key)).toEqual(exactPhilox(counter, key));
      }),
    );
  });
});

describe('uniform', () => {
  it('takes signed keys as bits, and stays in [0, 1)', () => {
    expect(uniform(5, [-1, -2])).toBe(uniform(5, [0xffffffff, 0xfffffffe]));
    const draws = Array.from({ length: 4000 }, (_, i) => uniform(i, [7, 9]));
    expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...draws)).toBeLessThan(1);
    // The mean of 4000 draws has a standard deviation of 0.0046.
    expect(Math.abs(draws.reduce((a, b) => a + b) / draws.length - 0.5)).toBeLessThan(0.02);
  });
});
