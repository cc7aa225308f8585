/** Sets of Unicode characters as ranges of code points. */

export type Range = readonly [first: number, last: number];

export const lastCharacter = 0x10ffff;

/** What a JSON string can hold unescaped; surrogates are no characters. */
export const plainCharacters: readonly Range[] = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, lastCharacter],
];

/** The same characters, in order, none twice. */
export function merged(ranges: readonly Range[]): Range[] {
  return complement(complement(ranges));
}

export function complement(ranges: readonly Range[]): Range[] {
  const rest: Range[] = [];
  let next = 0;
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    if (from > next) rest.push([next, from - 1]);
    next = Math.max(next, to + 1);
  }
  return next <= lastCharacter ? [...rest, [next, lastCharacter]] : rest;
}

export function intersect(a: readonly Range[], b: readonly Range[]): Range[] {
  return a.flatMap(([from, to]) =>
    b.flatMap(([low, high]): Range[] =>
      Math.max(from, low) <= Math.min(to, high) ? [[Math.max(from, low), Math.min(to, high)]] : [],
    ),
  );
}

export function includes(ranges: readonly Range[], character: number): boolean {
  return ranges.some(([from, to]) => character >= from && character <= to);
}

/** Characters beyond ASCII that a class may name one by one. */
const mostNamed = 64;

const plainAscii = intersect(plainCharacters, [[0, 0x7f]]);
const plainBeyond = intersect(plainCharacters, [[0x80, lastCharacter]]);

/**
 * Those that can stand in a string, in words of the library: its classes know ranges of ASCII, and all that is not in
 * such ranges. Of other classes only a part is left. Choices of which one is to fit; empty where nothing is left.
 */
export function classChoices(ranges: readonly Range[]): string[] {
  const ascii = intersect(ranges, plainAscii);
  const beyond = merged(intersect(ranges, plainBeyond));
  if (count(beyond) === count(plainBeyond)) return [`[^${rangesText(intersect(complement(ascii), [[0, 0x7f]]))}]`];
  const named = count(beyond) <= mostNamed ? beyond.flatMap(([from, to]) => charactersOf(from, to)) : [];
  return [...(ascii.length === 0 ? [] : [`[${rangesText(ascii)}]`]), ...named];
}

function count(ranges: readonly Range[]): number {
  return ranges.reduce((sum, [from, to]) => sum + to - from + 1, 0);
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
