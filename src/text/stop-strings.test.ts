import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UsageError } from '../util/errors.js';
import { StopStrings, stopStringLimits } from './stop-strings.js';

/** Feeds the pieces; the emitted text and the stop string. */
function feed(stops: readonly string[], pieces: readonly string[]): { text: string; stopped: string | undefined } {
  const matcher = new StopStrings(stops);
  let text = '';
  for (const piece of pieces) {
    const { emit, stopped } = matcher.push(piece);
    text += emit;
    if (stopped !== undefined) return { text, stopped };
  }
  return { text: text + matcher.flush(), stopped: undefined };
}

/** The definition: the stop string that ends first; of those that end there, the longest. */
function expected(stops: readonly string[], text: string): { text: string; stopped: string | undefined } {
  for (let end = 1; end <= text.length; end++) {
    const hits = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    const hit = hits[0];
    if (hit !== undefined) return { text: text.slice(0, end - hit.length), stopped: hit };
  }
  return { text, stopped: undefined };
}

describe('by hand', () => {
  test('over token borders', () => {
    const matcher = new StopStrings(['\nUser:']);
    expect(matcher.push('Hi.\nUs')).toEqual({ emit: 'Hi.', stopped: undefined });
    expect(matcher.push('e')).toEqual({ emit: '', stopped: undefined });
    expect(matcher.push('r: and more')).toEqual({ emit: '', stopped: '\nUser:' });
    expect(matcher.push('x')).toEqual({ emit: '', stopped: '\nUser:' });
    expect(matcher.flush()).toBe('');
  });

  test('a false start is released, but for what may still become one', () => {
    const matcher = new StopStrings(['aab']);
    expect(matcher.push('aa')).toEqual({ emit: '', stopped: undefined });
    expect(matcher.push('a')).toEqual({ emit: 'a', stopped: undefined });
    expect(matcher.push('c')).toEqual({ emit: 'aac', stopped: undefined });
    expect(matcher.push('a')).toEqual({ emit: '', stopped: undefined });
    expect(matcher.flush()).toBe('a');
    expect(matcher.flush()).toBe('');
    expect(matcher.push('ab')).toEqual({ emit: 'ab', stopped: undefined });
  });

  test('the first to be complete wins, then the longest', () => {
    expect(feed(['world', 'lo'], ['hello world'])).toEqual({ text: 'hel', stopped: 'lo' });
    expect(feed(['lo', 'hello', 'o'], ['hello'])).toEqual({ text: '', stopped: 'hello' });
    expect(feed(['abcd', 'bc'], ['abcd'])).toEqual({ text: 'a', stopped: 'bc' });
  });

  test('none', () => expect(feed([], ['a', 'b'])).toEqual({ text: 'ab', stopped: undefined }));
});

test('any cut into pieces gives what the definition says', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '\n', '😀'), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n', '😀'), minLength: 1, maxLength: 4 }), {
    maxLength: 4,
  });
  fc.assert(
    fc.property(stops, fc.array(letters, { maxLength: 8 }), (list, pieces) => {
      expect(feed(list, pieces)).toEqual(expected(list, pieces.join('')));
    }),
    { numRuns: 2000 },
  );
});

test('holds back no more than needed', () => {
  const stop = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(stop, fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 20 }), (each, text) => {
      const { emit, stopped } = new StopStrings([each]).push(text);
      fc.pre(stopped === undefined);
      const held = text.slice(emit.length);
      expect(each.startsWith(held)).toBe(true);
      for (let n = held.length + 1; n < each.length; n++) expect(text.endsWith(each.slice(0, n))).toBe(false);
    }),
  );
});

test('limits', () => {
  expect(() => new StopStrings([''])).toThrow(UsageError);
  expect(() => new StopStrings(Array<string>(stopStringLimits.count + 1).fill('a'))).toThrow(UsageError);
  expect(() => new StopStrings(['a'.repeat(stopStringLimits.length + 1)])).toThrow(UsageError);
  const long = 'a'.repeat(stopStringLimits.length);
  expect(feed([`${long.slice(1)}b`], [long.repeat(100)]).text).toBe(long.repeat(100));
});
