import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lengthPattern, wholeText, writtenPattern } from './json-string-pattern.js';
import { readExpression } from './regular-expression.js';

const written = (pattern: string): string => writtenPattern(wholeText(readExpression(pattern)));

describe('patterns of written strings', () => {
  it('are of ASCII, or of all but some of it', () => {
    expect(written('^[^,]+\\.$')).toBe('^[^\\x00-\\x1f",\\\\]+\\.$');
    expect(written('.\\d[a-cé]')).toBe('^[^\\x00-\\x1f"\\\\][0-9](?:[a-c]|é)$');
    expect(() => written('[\\u0100-\\u0300]')).toThrow(/beyond ASCII/);
  });

  it.each([
    '^.*$',
    '^[^a]+$',
    '^\\S+@\\S+\\.\\w{2,3}$',
    '^[ -~]+$',
    '^\\d{3}-\\D$',
    '^(?:ab|[\\]\\-x]){1,3}$',
    '^[\\s\\w]$',
    '^\\u00e9[\\u0100-\\u0110]?$',
    '^a{2}\\$\\/$',
    '^(?:yes|no-)$|^[\t a]$|^$',
  ])('allow what the pattern allows and needs no escape: %s', (pattern) => {
    const [original, rewritten] = [new RegExp(pattern, 'u'), new RegExp(written(pattern), 'u')];
    const texts = fc.oneof(fc.string({ unit: 'binary', maxLength: 4 }), fc.stringMatching(original), fc.string());
    fc.assert(
      fc.property(texts, (text) => {
        const isPlain = JSON.stringify(text) === `"${text}"`;
        const fits = original.test(text) && isPlain;
        // Beyond ASCII some may be missing; none is too many.
        if (/^[\0-\x7f]*$/.test(text)) expect(rewritten.test(text)).toBe(fits);
        else if (rewritten.test(text) && !/[\u2028\u2029]/.test(text)) expect(fits).toBe(true);
      }),
    );
  });

  it('refuse what would need an escape, or is of another kind', () => {
    for (const pattern of [
      '"',
      '\\\\',
      '\\n',
      '["\\\\]',
      '\\x1f',
      '(?=a)',
      '(?<=a)b',
      '(?<n>a)\\k<n>',
      '\\bx',
      '(a)\\1',
      '\\p{L}',
    ]) {
      expect(() => written(pattern), pattern).toThrow(/not supported/);
    }
    for (const pattern of ['a\nb', 'a\tb', '\u0001', '\ud800']) {
      expect(() => written(pattern), JSON.stringify(pattern)).toThrow(/not supported/);
    }
    expect(() => written('a)|(b')).toThrow(/no regular expression/);
  });

  it.each([
    ['yes|no', '^(?:yes|no)$'],
    ['^a|b$', '^(?:a|b)$'],
    ['a$|b', '^(?:a|b)$'],
    ['(?:a|b)|c|', '^(?:(?:a|b)|c)?$'],
    ['[|^$]|\\|', '^(?:[|\\^$]|\\|)$'],
    ['{a}{2', '^\\{a\\}\\{2$'],
    ['(?<year>\\d{4})-(?P<month>0\\d)', '^[0-9]{4}-0[0-9]$'],
    ['[(?P<]a', '^[(?P<]a$'],
  ])('are alternatives for the whole text: %s', (pattern, expected) => {
    expect(written(pattern)).toBe(expected);
  });

  it('have no anchors but around an alternative', () => {
    for (const pattern of ['a^b', '(^a|b)c', '(?:a$)+', '^^a', '$a']) {
      expect(() => written(pattern), pattern).toThrow(/elsewhere than around/);
    }
  });

  it('count characters', () => {
    const pattern = new RegExp(lengthPattern(1, 3), 'u');
    expect(['', 'a', 'é☃😀', 'abcd', 'a\tb', 'a"'].map((text) => pattern.test(text))).toEqual([
      false,
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});
