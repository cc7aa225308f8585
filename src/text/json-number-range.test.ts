import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isInside, numberPattern, type NumberRange } from './json-number-range.js';

const none = { min: -Infinity, max: Infinity, above: -Infinity, below: Infinity };
const whole = (range: Partial<NumberRange>): RegExp => new RegExp(`^(?:${numberPattern({ ...none, ...range })!})$`);
const usual = /^(?:-(?!0(?:\.0*)?$))?(?:0|[1-9]\d*)(?:\.\d+)?$/;

describe('numbers between bounds', () => {
  it.each<[Partial<NumberRange>, string[], string[]]>([
    [
      { min: 0, max: 1 },
      ['0', '0.0', '0.5', '0.99', '1', '1.00'],
      ['1.7', '1.01', '-0', '-0.5', '2', '00', '0.', '.5'],
    ],
    [{ min: 0.5, max: 1.5 }, ['0.5', '0.50', '1', '1.5'], ['1"5', '0 5', '0.4', '0', '1.51', '0.499999']],
    [{ min: 3 }, ['3', '3.0', '4', '10', '123456789.25'], ['1', '2.9', '-3', '1e5', '1234567890123456']],
    [{ max: -3 }, ['-3', '-3.5', '-40'], ['-1', '-2.999', '3', '0']],
    [{ above: 1, below: 2 }, ['1.5', '1.000001', '1.9999'], ['1', '1.0', '2', '2.0', '1.00']],
    [{ above: 0 }, ['0.1', '0.000001', '1'], ['0', '0.0', '-1']],
    [{ min: -0.25, max: 1e3 }, ['-0.25', '-0.1', '0', '1000', '999.9'], ['-0.26', '-1', '1000.1', '-0.0']],
    [{ min: 0.1, below: 0.3 }, ['0.1', '0.2', '0.29999999999999'], ['0.3', '0.09999999999999']],
    [{ min: 5, max: 5 }, ['5', '5.0'], ['4', '5.1']],
    [{ min: 0, max: 1e300 }, ['0', '123456789.5'], ['-1', '1e300']],
    [{ min: 1e12 }, ['1000000000000', '1000000000000.5'], ['999999999999']],
  ])('are those and no others: %j', (range, good, bad) => {
    const pattern = whole(range);
    expect([...good, ...bad].filter((text) => pattern.test(text))).toEqual(good);
  });

  it('are inside when they are read', () => {
    const bound = fc.oneof(
      fc.double({ noNaN: true, min: -1e6, max: 1e6 }),
      fc.integer({ min: -30, max: 30 }).map((n) => n / 10),
      fc.constant(undefined),
    );
    fc.assert(
      fc.property(bound, bound, fc.boolean(), fc.array(fc.integer({ min: -400, max: 400 })), (a, b, strict, list) => {
        const [low, high] = a !== undefined && b !== undefined && a > b ? [b, a] : [a, b];
        const range = strict
          ? { ...none, above: low ?? -Infinity, below: high ?? Infinity }
          : { ...none, min: low ?? -Infinity, max: high ?? Infinity };
        const pattern = numberPattern(range);
        if (pattern === undefined) return;
        const regex = whole(range);
        for (const text of fc.sample(fc.stringMatching(regex), 5)) {
          expect(text).toMatch(usual);
          expect(isInside(Number(text), range), text).toBe(true);
        }
        for (const text of list.map((n) => String(n / 100))) {
          expect(regex.test(text), text).toBe(isInside(Number(text), range));
        }
      }),
      { numRuns: 20 },
    );
  });

  it('may be none', () => {
    for (const range of [{ above: 1, below: 1 }, { min: 2, max: 1 }, { min: 1e300 }, { above: 0, below: 1e-20 }]) {
      expect(numberPattern({ ...none, ...range })).toBeUndefined();
    }
  });
});
