import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { includes } from './character-ranges.js';
import { wholeText } from './json-string-pattern.js';
import { readExpression } from './regular-expression.js';
import { Language, TooLarge, type Automaton } from './regular-language.js';

const limits = { states: 2000, steps: 100_000 };

function automaton(patterns: readonly string[], without: readonly string[] = []): Automaton {
  const language = new Language(limits);
  const fitting = patterns.map((pattern) => language.textsOf(wholeText(readExpression(pattern))));
  const others = without.map((text) => language.not(language.text(text)));
  return language.automatonOf(language.both([...fitting, ...others]), () => true);
}

function accepts({ states }: Automaton, text: string): boolean {
  let at = states[0];
  for (const character of text) {
    const edge = at?.edges.find(({ ranges }) => includes(ranges, character.codePointAt(0)!));
    at = edge === undefined ? undefined : states[edge.to];
  }
  return at?.mayEnd ?? false;
}

/** Texts of a few characters that the patterns below tell apart. */
const texts = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '.', '-', '1', 'é'), maxLength: 7 });

describe('an automaton', () => {
  it.each<[string[]]>([
    [['^(?:a|ab)*$']],
    [['^(?:a?b){2,3}c*$', '^.{3,5}$']],
    [['^(?:a{1,2}){2,3}$']],
    [['^(?:a*){3}b$']],
    [['^(?!.*b)(?=.*c)[a-c]+$']],
    [['^(?!^[-.]*$)-?a*\\.?b*$']],
    [['^(?:ab|(?!.*c)a(?=.b).*)$']],
    [['^a(?:b(?=c)c)?(?!c)..$']],
    [['^[^a]*1$', '^[^b]*$', '^\\S+$']],
    [['^(?=.{2,4}$)a.*$']],
  ])('has the texts that fit all of %j', (patterns) => {
    const found = automaton(patterns);
    const all = patterns.map((pattern) => new RegExp(pattern, 'su'));
    const fitting = fc.oneof(
      texts,
      ...all
        .filter(({ source }) => !source.includes('(?!') && !source.includes('(?='))
        .map((one) => fc.stringMatching(one)),
    );
    fc.assert(
      fc.property(fitting, (text) => {
        const isPlain = JSON.stringify(text) === `"${text}"`;
        expect(accepts(found, text), text).toBe(isPlain && all.every((one) => one.test(text)));
      }),
    );
  });

  it('leaves texts out', () => {
    const found = automaton(['^[ab]*$'], ['ab', 'é']);
    expect(['', 'a', 'ab', 'abb', 'b', 'é'].filter((text) => accepts(found, text))).toEqual(['', 'a', 'abb', 'b']);
  });

  it('has no states where nothing fits, and none from which nothing does', () => {
    expect(automaton(['^a$', '^b$']).states).toEqual([]);
    expect(automaton(['^ab$|^a"$']).states).toHaveLength(3);
  });

  it('is given up where it is too large', () => {
    for (const patterns of [['(?:a|b)*a(?:a|b){12}'], ['.{3000}'], ['((a{1,1000}){1,1000}){1,1000}']]) {
      expect(() => automaton(patterns), patterns[0]).toThrow(TooLarge);
    }
  });

  it('cannot look ahead in what repeats without end', () => {
    expect(() => automaton(['^(?:a(?=b)|b)*$'])).toThrow(/repeats without end, which is not supported/);
    expect(() => automaton(['^a^b$'])).toThrow(/elsewhere than at the beginning/);
  });
});
