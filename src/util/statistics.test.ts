import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { median, ratioOf, spreadOf } from './statistics.js';

const numbers = fc.array(fc.double({ min: 1e-3, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 20 });

describe('median', () => {
  it('is the middle value, or the mean of the two in the middle', () => {
    expect(median([7])).toBe(7);
    expect(median([10, 9, 1])).toBe(9);
    expect(median([4, 100, 2, 3])).toBe(3.5);
  });

  it('has as many values below it as above it, and leaves its argument alone', () => {
    fc.assert(
      fc.property(numbers, (values) => {
        const copy = [...values];
        const middle = median(values);
        expect(values).toEqual(copy);
        const below = values.filter((value) => value < middle).length;
        const above = values.filter((value) => value > middle).length;
        expect(Math.max(below, above)).toBeLessThanOrEqual(values.length / 2);
      }),
    );
  });

  it('of nothing is a bug', () => {
    expect(() => median([])).toThrow('internal error');
  });
});

describe('spreadOf', () => {
  it('is the median with the extremes', () => {
    expect(spreadOf([3, 1, 2, 10])).toEqual({ median: 2.5, min: 1, max: 10 });
  });
});

describe('ratioOf', () => {
  it('divides medians, and rounds by rounds for the extremes', () => {
    // Rounds: 2/1, 30/10, 4/4.
    expect(ratioOf([2, 30, 4], [1, 10, 4])).toEqual({ median: 1, min: 1, max: 3 });
  });

  it('is 1 throughout against itself', () => {
    fc.assert(
      fc.property(numbers, (values) => {
        expect(ratioOf(values, values)).toEqual({ median: 1, min: 1, max: 1 });
      }),
    );
  });

  it('needs the same rounds on both sides', () => {
    expect(() => ratioOf([1, 2], [1])).toThrow('internal error');
  });
});
