import { isIPv4, isIPv6 } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { formatPattern } from './json-string-formats.js';
import { wholeText, writtenPattern } from './json-string-pattern.js';
import { readExpression } from './regular-expression.js';

const whole = (format: string): RegExp =>
  new RegExp(writtenPattern(wholeText(readExpression(formatPattern(format)!))), 'u');
const reads = (schema: z.ZodType) => (text: string) => schema.safeParse(text).success;

function isDate(text: string): boolean {
  const time = Date.parse(`${text}T00:00:00Z`);
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text);
}

describe('texts of a format', () => {
  it.each<[string, (text: string) => boolean]>([
    ['date', isDate],
    ['time', (text) => !Number.isNaN(Date.parse(`2000-01-01T${text}`))],
    ['date-time', (text) => isDate(text.slice(0, 10)) && !Number.isNaN(Date.parse(text))],
    ['duration', reads(z.iso.duration())],
    ['email', reads(z.email())],
    ['hostname', (text) => reads(z.hostname())(text) && new URL(`http://${text}`).hostname === text],
    ['ipv4', isIPv4],
    ['ipv6', isIPv6],
    ['uri', (text) => URL.canParse(text) && new URL(text).hostname !== ''],
    ['uri-reference', (text) => URL.canParse(text, 'http://a/b')],
    ['uri-template', (text) => /^(?:[^{}]|\{[^{}\s]+\})*$/.test(text) && URL.canParse(text, 'http://a/')],
    ['json-pointer', (text) => text === '' || (text.startsWith('/') && !/~(?![01])/.test(text))],
    ['relative-json-pointer', (text) => /^(?:0|[1-9]\d*)(?:#|$|\/)/.test(text) && !/~(?![01])/.test(text)],
    ['byte', (text) => reads(z.base64())(text) && Buffer.from(text, 'base64').toString('base64') === text],
    ['uuid', reads(z.uuid())],
  ])('are read by others: %s', (format, isRead) => {
    const texts = fc.stringMatching(whole(format)).filter((text) => text.length < 120);
    fc.assert(
      fc.property(texts, (text) => {
        expect(JSON.stringify(text)).toBe(`"${text}"`);
        expect(isRead(text), text).toBe(true);
      }),
    );
  });

  it('are all days that there are', () => {
    const date = whole('date');
    for (const year of ['0001', '0400', '1900', '2000', '2023', '2024', '2100', '9999']) {
      for (let month = 0; month <= 13; month++) {
        for (let day = 0; day <= 32; day++) {
          const text = `${year}-${String(month).padStart(2, '0')}-${String(day).padStart(2, '0')}`;
          expect(date.test(text), text).toBe(isDate(text));
        }
      }
    }
  });

  it.each([
    ['date', '0000-01-01'],
    ['time', '20:60:16Z'],
    ['date-time', '2024-01-01T20:60:16Z'],
    ['date-time', '2024-01-01 20:10:16Z'],
    ['ipv4', '06.1.9.4'],
    ['ipv4', '1.2.3.256'],
    ['ipv6', '1::2::3'],
    ['email', 'a..b@example.org'],
    ['uuid', '00000000-0000-0000-0000-00000000000g'],
  ])('are no others: %s %s', (format, text) => {
    expect(whole(format).test(text)).toBe(false);
  });

  it.each([
    ['date-time', '2024-02-29T23:59:59.5+01:00'],
    ['duration', 'P1Y2M3DT4H5M6S'],
    ['email', 'first.last+tag@mail.example.org'],
    ['hostname', 'localhost'],
    ['ipv4', '255.10.0.199'],
    ['ipv6', '2001:db8::8a2e:370:7334'],
    ['uri', 'https://example.org:8080/a/b?c=d#e'],
    ['uri-reference', '../a?b'],
    ['uri-template', '/people{/id}{?q,lang}'],
    ['json-pointer', '/a~1b/0'],
    ['relative-json-pointer', '1/a'],
    ['uuid', 'f81d4fae-7dec-41d0-a765-00a0c91e6bf6'],
  ])('are the usual ones: %s %s', (format, text) => {
    expect(whole(format).test(text)).toBe(true);
  });

  it('are none of a format that is not known', () => {
    expect(formatPattern('int32')).toBeUndefined();
  });
});
