/**
 * Regular expressions for the text of a JSON string as it is written: between its quotes, without escapes. Where a
 * pattern allows a quote, a backslash or a control character among others, only the others are left; where it wants one, it
 * is refused. Every alternative is one for the whole text.
 *
 *   ^[^,]+\.$   -->   ^[^\x00-\x1f",\\]+\.$
 *   ^a|b        -->   ^(?:a|b)$
 */
import { show } from '../util/checked.js';
import { UsageError } from '../util/errors.js';

type Range = readonly [first: number, last: number];

const last = 0x10ffff;
/** What a JSON string can hold unescaped; surrogates are no characters. */
const plain: readonly Range[] = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, last],
];
const digits: readonly Range[] = [[0x30, 0x39]];
const words: readonly Range[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const spaces: readonly Range[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x2028, 0x2029],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const sets: Readonly<Record<string, readonly Range[]>> = {
  ...{ '\\d': digits, '\\D': complement(digits) },
  ...{ '\\w': words, '\\W': complement(words) },
  ...{ '\\s': spaces, '\\S': complement(spaces) },
  // That U+2028 ends a line is known to JavaScript only.
  '.': [[0, last]],
};

/** A text of so many characters. */
export function lengthPattern(min: number, max: number | undefined): string {
  return `^${classOf(plain)}{${min},${max ?? ''}}$`;
}

/** Throws UsageError for what has no such pattern. */
export function writtenPattern(pattern: string): string {
  if (!isPattern(pattern))
    throw new UsageError(`the schema has a pattern that is no regular expression: ${show(pattern)}`);
  const token = /\[\^?(?:\\[^]|[^\]\\])*\]|\\u[\da-fA-F]{4}|\\x[\da-fA-F]{2}|\\[^]|\(\?:|\{\d+(?:,\d*)?\}|[^]/gu;
  const choices = alternatives(pattern.match(token) ?? []).map((parts) =>
    withoutAnchors(parts)
      .map((part, i, all) => written(part, all[i - 1]))
      .join(''),
  );
  const some = choices.filter((choice) => choice !== '');
  if (choices.length === 1 || some.length === 0) return `^${choices[0]!}$`;
  return `^(?:${some.join('|')})${some.length < choices.length ? '?' : ''}$`;
}

function isPattern(pattern: string): boolean {
  try {
    return new RegExp(pattern) instanceof RegExp;
  } catch {
    return false;
  }
}

/** What stands between the `|` that are in no group. */
function alternatives(parts: readonly string[]): string[][] {
  const choices: string[][] = [[]];
  let depth = 0;
  for (const part of parts) {
    if (part.startsWith('(')) depth++;
    if (part === ')') depth--;
    if (part === '|' && depth === 0) choices.push([]);
    else choices.at(-1)!.push(part);
  }
  return choices;
}

function withoutAnchors(parts: readonly string[]): readonly string[] {
  return parts.slice(parts[0] === '^' ? 1 : 0, parts.at(-1) === '$' ? -1 : undefined);
}

/** What is no character, where it is no anchor. */
const operators = /^(?:\(\?:|[()|*+?]|\{.+\})$/;

function written(part: string, before: string | undefined): string {
  if (part === '?' && before === '(') throw unsupported('a look-ahead or a named group');
  if (part === '^' || part === '$')
    throw unsupported('^ or $ elsewhere than around all of it or around an alternative');
  if (operators.test(part)) return part;
  if (part.startsWith('[') && part.length > 1) return classOf(readClass(part));
  const set = sets[part];
  return set === undefined ? literal(codeOf(part)) : classOf(set);
}

/** `[...]` or `[^...]`. */
function readClass(text: string): readonly Range[] {
  const negated = text.startsWith('[^');
  const items = text.slice(negated ? 2 : 1, -1).match(/\\u[\da-fA-F]{4}|\\x[\da-fA-F]{2}|\\[^]|[^]/gu) ?? [];
  const ranges: Range[] = [];
  for (let i = 0; i < items.length; i++) {
    const item = items[i]!;
    const set = item === '.' ? undefined : sets[item];
    if (set !== undefined) {
      ranges.push(...set);
    } else if (items[i + 1] === '-' && items[i + 2] !== undefined) {
      ranges.push([codeOf(item), codeOf(items[i + 2]!)]);
      i += 2;
    } else {
      ranges.push([codeOf(item), codeOf(item)]);
    }
  }
  return negated ? complement(ranges) : ranges;
}

/** The character that an item stands for. */
function codeOf(item: string): number {
  if (!item.startsWith('\\')) return item.codePointAt(0)!;
  if (/^\\[ux]/.test(item) && item.length > 2) return Number.parseInt(item.slice(2), 16);
  const control = 'nrtfv0'.indexOf(item[1]!);
  if (control >= 0) return [0x0a, 0x0d, 0x09, 0x0c, 0x0b, 0][control]!;
  if (/^\\[A-Za-z\d]/.test(item)) throw unsupported(item);
  return item.codePointAt(1)!;
}

function literal(code: number): string {
  if (!plain.some(([from, to]) => code >= from && code <= to)) {
    throw unsupported('a quote, a backslash or a control character');
  }
  const character = String.fromCodePoint(code);
  return /[\^$\\.*+?()[\]{}|/]/.test(character) ? `\\${character}` : character;
}

/** Characters beyond ASCII that a class may name one by one. */
const mostNamed = 64;

/**
 * A class of those that can stand in a string. The library knows ranges of ASCII, and all that is not in such ranges; of
 * other classes only a part is left, which fits all the same.
 */
function classOf(ranges: readonly Range[]): string {
  const kept = intersect(ranges, plain);
  const ascii = intersect(kept, [[0, 0x7f]]);
  const beyond = intersect(kept, [[0x80, last]]);
  const all = intersect(plain, [[0x80, last]]);
  const count = (list: readonly Range[]): number => list.reduce((sum, [from, to]) => sum + to - from + 1, 0);
  if (count(merged(beyond)) === count(all)) return `[^${rangesText(intersect(complement(ascii), [[0, 0x7f]]))}]`;
  const named = count(beyond) <= mostNamed ? beyond.flatMap(([from, to]) => charactersOf(from, to)) : [];
  const choices = [...(ascii.length === 0 ? [] : [`[${rangesText(ascii)}]`]), ...named];
  if (choices.length > 0) return choices.length === 1 ? choices[0]! : `(?:${choices.join('|')})`;
  if (beyond.length > 0) throw unsupported('a class of many characters beyond ASCII, but not of all');
  throw unsupported('a quote, a backslash or a control character');
}

function charactersOf(from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => String.fromCodePoint(from + i));
}

function rangesText(ranges: readonly Range[]): string {
  const character = (code: number): string =>
    code < 0x20 || code === 0x7f
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : String.fromCharCode(code).replace(/[\]\\^[-]/, '\\$&');
  return ranges.map(([from, to]) => (from === to ? character(from) : `${character(from)}-${character(to)}`)).join('');
}

/** The same characters, in order, none twice. */
function merged(ranges: readonly Range[]): Range[] {
  return complement(complement(ranges));
}

function complement(ranges: readonly Range[]): Range[] {
  const rest: Range[] = [];
  let next = 0;
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    if (from > next) rest.push([next, from - 1]);
    next = Math.max(next, to + 1);
  }
  return next <= last ? [...rest, [next, last]] : rest;
}

function intersect(a: readonly Range[], b: readonly Range[]): Range[] {
  return a.flatMap(([from, to]) =>
    b.flatMap(([low, high]): Range[] =>
      Math.max(from, low) <= Math.min(to, high) ? [[Math.max(from, low), Math.min(to, high)]] : [],
    ),
  );
}

function unsupported(what: string): UsageError {
  return new UsageError(`the schema has a pattern with ${what}, which is not supported`);
}
