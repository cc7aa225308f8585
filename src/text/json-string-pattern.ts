/**
 * Regular expressions for the text of a JSON string as it is written: between its quotes, without escapes. Where a
 * pattern allows a quote, a backslash or a control character among others, only the others are left; where it wants one, it
 * is refused. Every alternative is one for the whole text.
 *
 *   ^[^,]+\.$   -->   ^[^\x00-\x1f",\\]+\.$
 *   ^a|b        -->   ^(?:a|b)$
 */
import { classChoices, includes, lastCharacter, plainCharacters, type Range } from './character-ranges.js';
import { isEdge, unsupported, type Expression } from './regular-expression.js';

/** A text of so many characters. */
export function lengthPattern(min: number, max: number | undefined): string {
  return `^${classOf(plainCharacters)}{${min},${max ?? ''}}$`;
}

/** Of what is a whole text. Throws PatternError for what has no such pattern. */
export function writtenPattern(text: Expression): string {
  return `^${writtenExpression(text)}$`;
}

/** Without the anchors around it, or around its alternatives. */
export function wholeText(expression: Expression): Expression {
  if (expression.kind === 'choice') return { kind: 'choice', choices: expression.choices.map(wholeText) };
  if (expression.kind !== 'sequence') return expression;
  const { parts } = expression;
  return {
    kind: 'sequence',
    parts: parts.slice(isEdge(parts[0], 'start') ? 1 : 0, isEdge(parts.at(-1), 'end') ? -1 : undefined),
  };
}

/** A text with a part that fits it, as JSON schemas mean a pattern. */
export function textAround(expression: Expression): Expression {
  if (expression.kind === 'choice') return { kind: 'choice', choices: expression.choices.map(textAround) };
  const parts = expression.kind === 'sequence' ? expression.parts : [expression];
  const before = isEdge(parts[0], 'start') ? [] : [anyText];
  const behind = isEdge(parts.at(-1), 'end') ? [] : [anyText];
  return { kind: 'sequence', parts: [...before, wholeText({ kind: 'sequence', parts }), ...behind] };
}

const anyText: Expression = {
  ...{ kind: 'repeat', least: 0, most: Infinity },
  part: { kind: 'characters', ranges: [[0, lastCharacter]] },
};

function writtenExpression(expression: Expression): string {
  switch (expression.kind) {
    case 'characters':
      return classOf(expression.ranges);
    case 'sequence':
      return expression.parts.map(writtenExpression).join('');
    case 'choice': {
      const some = expression.choices.map(writtenExpression).filter((choice) => choice !== '');
      return some.length === 0 ? '' : `(?:${some.join('|')})${some.length < expression.choices.length ? '?' : ''}`;
    }
    case 'repeat': {
      const { part, least, most } = expression;
      const text = writtenExpression(part);
      return text === '' ? '' : `${asOne(part, text)}${countText(least, most)}`;
    }
    case 'ahead':
      throw unsupported('a look-ahead');
    case 'edge':
      throw unsupported('^ or $ elsewhere than around all of it or around an alternative');
    default:
      return expression satisfies never;
  }
}

/** What a count can stand behind. */
function asOne(part: Expression, text: string): string {
  const isOne = part.kind === 'characters' || (part.kind === 'choice' && !text.endsWith('?'));
  return isOne ? text : `(?:${text})`;
}

function countText(least: number, most: number): string {
  if (most === Infinity && least < 2) return least === 0 ? '*' : '+';
  if (least === 0 && most === 1) return '?';
  return least === most ? `{${least}}` : `{${least},${most === Infinity ? '' : most}}`;
}

/** A class of those that can stand in a string. Where the library has none that is the same, a part of it, which fits, too. */
function classOf(ranges: readonly Range[]): string {
  const [first, ...others] = ranges;
  if (first !== undefined && others.length === 0 && first[0] === first[1]) return literal(first[0]);
  const choices = classChoices(ranges);
  if (choices.length > 0) return choices.length === 1 ? choices[0]! : `(?:${choices.join('|')})`;
  throw unsupported('a quote, a backslash or a control character, or many characters beyond ASCII, but not all');
}

function literal(code: number): string {
  if (!includes(plainCharacters, code)) throw unsupported('a quote, a backslash or a control character');
  const character = String.fromCodePoint(code);
  return /[\^$\\.*+?()[\]{}|/]/.test(character) ? `\\${character}` : character;
}
