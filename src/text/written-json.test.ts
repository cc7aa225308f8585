import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parsed, writtenItems, writtenMembers, writtenObject } from './written-json.js';

describe('JSON as it is written', () => {
  it('is what it was, without white space', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue()), (object, list) => {
        const text = JSON.stringify(object);
        expect(writtenObject(JSON.stringify(object, null, 2))).toBe(text);
        expect([...writtenMembers(JSON.stringify(object, null, 2))!]).toEqual(
          // By the text: an object would take `__proto__` for something else.
          Object.keys(object).map((key) => [key, JSON.stringify(object[key])]),
        );
        expect(writtenItems(JSON.stringify(list, null, '\t'))).toEqual(list.map((item) => JSON.stringify(item)));
      }),
    );
  });

  it('keeps digits and escapes, and the last of two members', () => {
    const text = ' {"a" : 1.0, "b": [12345678901234567890, {"c": "\\u0041 , }"}], "\\u0061": 1E2 } ';
    expect(writtenObject(text)).toBe('{"a":1.0,"b":[12345678901234567890,{"c":"\\u0041 , }"}],"\\u0061":1E2}');
    expect([...writtenMembers(text)!]).toEqual([
      ['a', '1E2'],
      ['b', '[12345678901234567890,{"c":"\\u0041 , }"}]'],
    ]);
  });

  it('is of the kind that is asked for', () => {
    for (const text of ['', '{', '[]', 'null', '"{}"', '{"a":1}x', "{'a':1}"]) {
      expect([writtenObject(text), writtenMembers(text)]).toEqual([undefined, undefined]);
    }
    expect([writtenItems('{}'), writtenItems('[1,]'), writtenItems('[]')]).toEqual([undefined, undefined, []]);
    expect([parsed('1.0'), parsed('x')]).toEqual([1, undefined]);
  });
});
