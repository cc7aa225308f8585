import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkedProduct, plain, show } from './checked.js';

describe('checkedProduct', () => {
  it('agrees with exact integers, and refuses what leaves 2^53', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 2 ** 31 - 1 }), { maxLength: 5 }), (factors) => {
        const exact = factors.reduce((product, factor) => product * BigInt(factor), 1n);
        const result = checkedProduct(factors);
        if (result !== undefined) expect(BigInt(result)).toBe(exact);
        else expect(exact >= 2n ** 53n || factors.includes(0)).toBe(true);
      }),
    );
  });

  it('refuses factors that are not sizes', () => {
    expect(checkedProduct([])).toBe(1);
    for (const bad of [-1, 0.5, NaN, Infinity, 2 ** 53]) expect(checkedProduct([bad])).toBeUndefined();
  });
});

describe('show', () => {
  it('is one short line without control characters', () => {
    expect(show('a\nb\u001b[31m\u009b')).toBe('"a\\nb\\u001b[31m?"');
    expect(show('x'.repeat(1000))).toHaveLength(60);
    expect(show(NaN)).toBe('NaN');
    expect(show(undefined)).toBe('undefined');
  });

  it('is the JSON of a value', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
        expect(show(value)).toBe(plain(JSON.stringify(value), 60));
      }),
    );
    expect(show({ a: [1, 'b', null], c: {} })).toBe('{"a":[1,"b",null],"c":{}}');
  });

  it('takes values of any depth', () => {
    expect(show(nested(200_000))).toBe(`${'['.repeat(57)}...`);
    expect(show({ a: nested(200_000) })).toBe(`{"a":${'['.repeat(52)}...`);
  });
});

function nested(depth: number): unknown {
  return JSON.parse('['.repeat(depth) + ']'.repeat(depth));
}
