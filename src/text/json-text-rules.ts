/**
 * What a schema says of a text, or of names of properties: patterns that the whole text fits, how long it is, and what it is
 * not. Where one pattern says all of it, that is taken; otherwise it takes an automaton of the texts that fit everything.
 *
 *   pattern: ^[A-Z]+$, minLength: 2   -->   text_0_0 ::= [A-Z] text_0_1
 *                                           text_0_1 ::= [A-Z] text_0_2
 *                                           text_0_2 ::= "\"" | [A-Z] text_0_2
 */
import { show } from '../util/checked.js';
import { UsageError } from '../util/errors.js';
import { classChoices } from './character-ranges.js';
import { lengthPattern, textAround, wholeText, writtenPattern } from './json-string-pattern.js';
import {
  lengthsOf,
  looksAround,
  PatternError,
  readExpression,
  withFewer,
  withoutCounting,
  type Expression,
} from './regular-expression.js';
import { Language, TooLarge, type Automaton } from './regular-language.js';

export interface TextRules {
  /** Of the schema. */
  readonly path: string;
  readonly patterns: readonly string[];
  readonly least: number;
  readonly most: number | undefined;
  /** Texts that do not fit. */
  readonly without: readonly string[];
  /** Patterns that no part of it fits. */
  readonly elsewhere?: readonly string[];
}

/** Of one automaton. */
const limits = { states: 3000, steps: 150_000 };
/** How often something may repeat, tried in turn where the automaton of all texts is too large. */
const mostRepeated = [256, 128, 64, 32, 16, 10, 4];

/** What a place in a schema is refused for. */
export function refused(path: string, what: string, hint?: string): UsageError {
  const message = `the schema at ${path.slice(0, 200)} ${what}, which is not supported`;
  return new UsageError(message, hint === undefined ? {} : { hint });
}

/** The pattern that says all; undefined where there is none. Throws UsageError for rules that cannot be followed. */
export function onePattern(rules: TextRules): string | undefined {
  return ofRules(rules, () => {
    const read = rules.patterns.map((pattern) => wholeText(readExpression(pattern)));
    const { expressions, least, most } = essential(read, rules);
    if (rules.without.length > 0 || (rules.elsewhere ?? []).length > 0) return undefined;
    const hasLengths = least > 0 || most !== undefined;
    if (expressions.length === 0) return lengthPattern(least, most);
    if (hasLengths || expressions.length > 1 || expressions.some(looksAround)) return undefined;
    return writtenPattern(expressions[0]!);
  });
}

/** The rules of a grammar for the text and the quote behind it; `NAME_0` is where it begins. Throws UsageError. */
export function textGrammar(rules: TextRules, name: string): string {
  const { states } = ofRules(rules, () => automatonOf(rules));
  if (states.length === 0) throw refused(rules.path, 'has rules for a text that no text fits', hintOfNone(rules));
  const lines = states.map(({ mayEnd, edges }, i) => {
    const choices = edges.flatMap(({ ranges, to }) =>
      classChoices(ranges).map((choice) => `${choice.startsWith('[') ? choice : `"${choice}"`} ${name}_${to}`),
    );
    return `${name}_${i} ::= ${[...(mayEnd ? ['"\\""'] : []), ...choices].join(' | ')}`;
  });
  return `${lines.join('\n')}\n`;
}

function hintOfNone({ patterns, elsewhere = [] }: TextRules): string {
  return elsewhere.length === 0
    ? 'patterns are those of the whole text'
    : `names that fit ${show(patterns[0])} fit other patterns, too`;
}

/** Of the texts that fit, or of those in which nothing repeats often, where that would be too large. */
function automatonOf(rules: TextRules): Automaton {
  const expressions = rules.patterns.map((pattern) => wholeText(readExpression(pattern)));
  const ofAtMost = (most: number): Expression[] => expressions.map((expression) => withFewer(expression, most));
  for (const most of [Infinity, ...mostRepeated]) {
    try {
      return exactAutomaton(essential(ofAtMost(most), rules), rules);
    } catch (error) {
      if (!(error instanceof TooLarge)) throw error;
    }
  }
  throw new TooLarge();
}

function exactAutomaton({ expressions, least, most }: Essential, { without, elsewhere = [] }: TextRules): Automaton {
  const language = new Language(limits);
  const parts = expressions.map((expression) => language.textsOf(expression));
  if (least > 0 || most !== undefined) parts.push(language.textsOfLength(least, most));
  parts.push(...without.map((text) => language.not(language.text(text))));
  const around = elsewhere.map((pattern) => textAround(readExpression(pattern)));
  parts.push(...around.map((expression) => language.not(language.textsOf(expression))));
  return language.automatonOf(language.both(parts), (ranges) => classChoices(ranges).length > 0);
}

interface Essential {
  readonly expressions: readonly Expression[];
  readonly least: number;
  readonly most: number | undefined;
}

/** With lengths as such, and without those that all texts have anyway. */
function essential(given: readonly Expression[], rules: TextRules): Essential {
  const counted = given.map(withoutCounting);
  const expressions = counted.map(({ expression }) => expression);
  const least = Math.max(rules.least, ...counted.map(({ counts }) => counts[0]));
  const most = Math.min(rules.most ?? Infinity, ...counted.map(({ counts }) => counts[1]));
  const shortest = Math.max(0, ...expressions.map((expression) => lengthsOf(expression)[0]));
  const longest = Math.min(...expressions.map((expression) => lengthsOf(expression)[1]));
  return { expressions, least: shortest >= least ? 0 : least, most: longest <= most ? undefined : most };
}

function ofRules<T>({ path, without, elsewhere = [] }: TextRules, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof PatternError) throw refused(path, error.what);
    if (error instanceof TooLarge || error instanceof RangeError) {
      const hint =
        without.length > 0
          ? 'give fewer properties, or additionalProperties: false'
          : `leave one of ${elsewhere.length > 0 ? 'the patterns' : 'pattern, format and lengths'} out`;
      throw refused(path, 'has rules for a text that take too much together', hint);
    }
    throw error;
  }
}
