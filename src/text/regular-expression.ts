/**
 * Regular expressions of JavaScript as trees, as far as their meaning does not depend on what matched before: no references
 * back, no words' borders, no looking behind.
 */
import { show } from '../util/checked.js';
import { UsageError } from '../util/errors.js';
import { complement, lastCharacter, merged, type Range } from './character-ranges.js';

export type Expression =
  | { readonly kind: 'characters'; readonly ranges: readonly Range[] }
  | { readonly kind: 'sequence'; readonly parts: readonly Expression[] }
  | { readonly kind: 'choice'; readonly choices: readonly Expression[] }
  /** `most` may be infinite. */
  | { readonly kind: 'repeat'; readonly part: Expression; readonly least: number; readonly most: number }
  /** What must, or must not, come next. */
  | { readonly kind: 'ahead'; readonly part: Expression; readonly negated: boolean }
  /** The beginning or the end of the text. */
  | { readonly kind: 'edge'; readonly at: 'start' | 'end' };

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
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const sets: Readonly<Record<string, readonly Range[]>> = {
  ...{ '\\d': digits, '\\D': complement(digits) },
  ...{ '\\w': words, '\\W': complement(words) },
  ...{ '\\s': spaces, '\\S': complement(spaces) },
  // That U+2028 ends a line is known to JavaScript only.
  '.': [[0, lastCharacter]],
};

/** Groups within groups. */
const maxDepth = 200;

/** A pattern that is none, or that is not supported. */
export class PatternError extends UsageError {
  constructor(readonly what: string) {
    super(`the schema ${what}, which is not supported`);
  }
}

/** Throws PatternError for what is no regular expression, or not one of these. */
export function readExpression(pattern: string): Expression {
  const tokens = pattern.match(token) ?? [];
  // Python's way to give a group a name.
  const ofJavaScript = tokens.map((one) => one.replace(/^\(\?P</, '(?<')).join('');
  if (!isPattern(ofJavaScript)) throw new PatternError(`has a pattern that is no regular expression: ${show(pattern)}`);
  return new Reader(tokens).read();
}

const token =
  /\[\^?(?:\\[^]|[^\]\\])*\]|\\u[\da-fA-F]{4}|\\x[\da-fA-F]{2}|\\[^]|\(\?(?:[:=!]|<[=!]|P?<[^>]*>)|\{\d+(?:,\d*)?\}|[^]/gu;

function isPattern(pattern: string): boolean {
  try {
    return new RegExp(pattern) instanceof RegExp;
  } catch {
    return false;
  }
}

export function unsupported(what: string): PatternError {
  return new PatternError(`has a pattern with ${what}`);
}

/** Whether it says something of what is not its own characters: of what comes next, or where it stands. */
export function looksAround(expression: Expression): boolean {
  switch (expression.kind) {
    case 'characters':
      return false;
    case 'sequence':
      return expression.parts.some(looksAround);
    case 'choice':
      return expression.choices.some(looksAround);
    case 'repeat':
      return looksAround(expression.part);
    case 'ahead':
    case 'edge':
      return true;
    default:
      return expression satisfies never;
  }
}

/** How many characters its texts have, at least and at most. */
export function lengthsOf(expression: Expression): [shortest: number, longest: number] {
  switch (expression.kind) {
    case 'characters':
      return [1, 1];
    case 'sequence': {
      const lengths = expression.parts.map(lengthsOf);
      return [sum(lengths.map(([shortest]) => shortest)), sum(lengths.map(([, longest]) => longest))];
    }
    case 'choice': {
      const lengths = expression.choices.map(lengthsOf);
      return [Math.min(...lengths.map(([shortest]) => shortest)), Math.max(...lengths.map(([, longest]) => longest))];
    }
    case 'repeat': {
      const { least, most } = expression;
      const [shortest, longest] = lengthsOf(expression.part);
      return [shortest * least, longest === 0 || most === 0 ? 0 : longest * most];
    }
    case 'ahead':
    case 'edge':
      return [0, 0];
    default:
      return expression satisfies never;
  }
}

/** Those texts in which what may repeat does so at most `most` times, or as often as it must. */
export function withFewer(expression: Expression, most: number): Expression {
  const fewer = (part: Expression): Expression => withFewer(part, most);
  switch (expression.kind) {
    case 'characters':
    case 'ahead':
    case 'edge':
      return expression;
    case 'sequence':
      return { kind: 'sequence', parts: expression.parts.map(fewer) };
    case 'choice':
      return { kind: 'choice', choices: expression.choices.map(fewer) };
    case 'repeat': {
      const { part, least } = expression;
      return { kind: 'repeat', part: fewer(part), least, most: Math.min(expression.most, Math.max(least, most)) };
    }
    default:
      return expression satisfies never;
  }
}

/**
 * Without a look-ahead at its beginning that only counts all characters, and how many it counts. What may, but need not,
 * come behind those that are counted is left out of account.
 *
 *   (?=.{1,64}$)[a-z-]+   -->   [a-z-]+ with 1 to 64 characters
 */
export function withoutCounting(expression: Expression): {
  expression: Expression;
  counts: [least: number, most: number];
} {
  const [first, ...rest] = expression.kind === 'sequence' ? expression.parts : [];
  const [counted, ...behind] = first?.kind === 'ahead' && first.part.kind === 'sequence' ? first.part.parts : [];
  const counts =
    first?.kind === 'ahead' &&
    !first.negated &&
    counted?.kind === 'repeat' &&
    isAnyCharacter(counted.part) &&
    isEdge(behind.at(-1), 'end') &&
    behind.slice(0, -1).every((part) => !looksAround(part) && lengthsOf(part)[0] === 0);
  if (!counts) return { expression, counts: [0, Infinity] };
  return { expression: { kind: 'sequence', parts: rest }, counts: [counted.least, counted.most] };
}

function isAnyCharacter(expression: Expression): boolean {
  return expression.kind === 'characters' && merged(expression.ranges).join() === `0,${lastCharacter}`;
}

export function isEdge(expression: Expression | undefined, at: 'start' | 'end'): boolean {
  return expression?.kind === 'edge' && expression.at === at;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Of a pattern that is valid. */
class Reader {
  #at = 0;

  constructor(private readonly tokens: readonly string[]) {}

  read(): Expression {
    return this.#choice(0);
  }

  #choice(depth: number): Expression {
    if (depth > maxDepth) throw unsupported(`groups nested more than ${maxDepth} deep`);
    const choices = [this.#sequence(depth)];
    while (this.tokens[this.#at] === '|') {
      this.#at++;
      choices.push(this.#sequence(depth));
    }
    return choices.length === 1 ? choices[0]! : { kind: 'choice', choices };
  }

  #sequence(depth: number): Expression {
    const parts: Expression[] = [];
    for (let next = this.tokens[this.#at]; next !== undefined && next !== '|' && next !== ')';) {
      this.#at++;
      parts.push(this.#repeated(this.#part(next, depth)));
      next = this.tokens[this.#at];
    }
    return { kind: 'sequence', parts };
  }

  #part(token: string, depth: number): Expression {
    if (token.startsWith('(')) return this.#group(token, depth);
    if (token === '^' || token === '$') return { kind: 'edge', at: token === '^' ? 'start' : 'end' };
    if (token.startsWith('[') && token.length > 1) return { kind: 'characters', ranges: readClass(token) };
    const set = sets[token];
    if (set !== undefined) return { kind: 'characters', ranges: set };
    const code = codeOf(token);
    return { kind: 'characters', ranges: [[code, code]] };
  }

  #group(token: string, depth: number): Expression {
    if (token === '(?<=' || token === '(?<!') throw unsupported('a look-behind');
    const part = this.#choice(depth + 1);
    this.#at++;
    if (token === '(?=' || token === '(?!') return { kind: 'ahead', part, negated: token === '(?!' };
    return part;
  }

  #repeated(part: Expression): Expression {
    const counts = countsOf(this.tokens[this.#at]);
    if (counts === undefined) return part;
    this.#at++;
    // Which of several matches is taken first makes no difference to what fits.
    if (this.tokens[this.#at] === '?') this.#at++;
    return { kind: 'repeat', part, ...counts };
  }
}

function countsOf(token: string | undefined): { least: number; most: number } | undefined {
  if (token === '*') return { least: 0, most: Infinity };
  if (token === '+') return { least: 1, most: Infinity };
  if (token === '?') return { least: 0, most: 1 };
  const [, least, comma, most] = /^\{(\d+)(,?)(\d*)\}$/.exec(token ?? '') ?? [];
  if (least === undefined) return undefined;
  return { least: Number(least), most: comma === '' ? Number(least) : most === '' ? Infinity : Number(most) };
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
