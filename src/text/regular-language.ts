/**
 * Sets of texts that regular expressions describe, also those that several of them or none may fit, as automata. A term is
 * what may still come; its derivative by a character is what may come after that character (Brzozowski, "Derivatives of
 * Regular Expressions", 1964). So both, not and looking ahead cost no more than a choice does.
 *
 *   ab*, derived by a   -->   b*
 */
import { includes, intersect, merged, plainCharacters, type Range } from './character-ranges.js';
import { looksAround, unsupported, type Expression } from './regular-expression.js';

/** Equal terms are the same object. */
export type Term = TermShape & {
  readonly id: number;
  /** The text may end here. */
  readonly mayEnd: boolean;
  /** By the number of a letter. */
  readonly derivatives: Term[];
};

type TermShape =
  | { readonly kind: 'nothing' | 'end' }
  | { readonly kind: 'characters'; readonly ranges: readonly Range[] }
  | { readonly kind: 'sequence'; readonly first: Term; readonly rest: Term }
  | { readonly kind: 'repeat'; readonly part: Term; readonly least: number; readonly most: number }
  | { readonly kind: 'choice' | 'both'; readonly parts: readonly Term[] }
  | { readonly kind: 'not'; readonly part: Term };

/** Deterministic; the first state is where texts begin. */
export interface Automaton {
  readonly states: readonly State[];
}

export interface State {
  readonly mayEnd: boolean;
  readonly edges: readonly Edge[];
}

export interface Edge {
  readonly ranges: readonly Range[];
  /** The state it leads to. */
  readonly to: number;
}

export interface LanguageLimits {
  readonly states: number;
  /** Terms looked at: what it costs. */
  readonly steps: number;
}

/** The automaton would be larger than it may be. */
export class TooLarge extends Error {}

/** Characters that are in the same classes of all terms. */
interface Letter {
  readonly ranges: readonly Range[];
  readonly example: number;
}

/** Terms of one automaton. */
export class Language {
  readonly #terms = new Map<string, Term>();
  readonly #classes = new Map<string, readonly Range[]>();
  #steps = 0;
  readonly nothing = this.#term({ kind: 'nothing' }, 'nothing', false);
  readonly end = this.#term({ kind: 'end' }, 'end', true);
  readonly anything = this.not(this.nothing);

  constructor(private readonly limits: LanguageLimits) {}

  /** The texts of an expression, followed by those of `rest`. Throws UsageError for what cannot be told apart like this. */
  textsOf(expression: Expression, rest: Term = this.end, isStart = true): Term {
    this.#step(1);
    switch (expression.kind) {
      case 'characters':
        return this.#sequence(this.#characters(expression.ranges), rest);
      case 'sequence':
        return this.#inSequence(expression.parts, rest, isStart);
      case 'choice':
        return this.choice(expression.choices.map((choice) => this.textsOf(choice, rest, isStart)));
      case 'repeat':
        return this.#repeated(expression, rest);
      case 'ahead': {
        const next = this.textsOf(expression.part, this.anything, isStart);
        return this.both([expression.negated ? this.not(next) : next, rest]);
      }
      case 'edge':
        if (expression.at === 'end') return this.both([this.end, rest]);
        if (!isStart) throw unsupported('^ elsewhere than at the beginning');
        return rest;
      default:
        return expression satisfies never;
    }
  }

  /** Of so many characters. */
  textsOfLength(least: number, most: number | undefined): Term {
    return this.#repeat(this.#characters(plainCharacters), least, most ?? Infinity);
  }

  text(text: string): Term {
    const characters = Array.from(text, (character) => character.codePointAt(0)!);
    return characters.reduceRight((rest, code) => this.#sequence(this.#characters([[code, code]]), rest), this.end);
  }

  choice(parts: readonly Term[]): Term {
    return this.#ofParts('choice', parts, this.nothing, this.anything);
  }

  both(parts: readonly Term[]): Term {
    return this.#ofParts('both', parts, this.anything, this.nothing);
  }

  not(part: Term): Term {
    return part.kind === 'not' ? part.part : this.#term({ kind: 'not', part }, `not ${part.id}`, !part.mayEnd);
  }

  /** Of texts without characters that JSON escapes. Throws TooLarge. */
  automatonOf(start: Term, isKept: (ranges: readonly Range[]) => boolean): Automaton {
    const letters = this.#letters();
    const numbers = new Map([[start, 0]]);
    const states: State[] = [];
    for (const term of numbers.keys()) {
      const ranges = new Map<Term, Range[]>();
      for (const [i, letter] of letters.entries()) {
        const next = this.#derivative(term, i, letter.example);
        if (next !== this.nothing) ranges.set(next, [...(ranges.get(next) ?? []), ...letter.ranges]);
      }
      const kept = [...ranges].filter(([, between]) => isKept(between));
      for (const [next] of kept) if (!numbers.has(next)) numbers.set(next, numbers.size);
      if (numbers.size > this.limits.states) throw new TooLarge();
      states.push({
        mayEnd: term.mayEnd,
        edges: kept.map(([next, between]) => ({ ranges: between, to: numbers.get(next)! })),
      });
    }
    return withoutDeadEnds(states);
  }

  #inSequence(parts: readonly Expression[], rest: Term, isStart: boolean): Term {
    const width = parts.findIndex((part) => part.kind !== 'edge' && part.kind !== 'ahead');
    const lastAtStart = width < 0 ? parts.length : width;
    return parts.reduceRight((next, part, i) => this.textsOf(part, next, isStart && i <= lastAtStart), rest);
  }

  #repeated({ part, least, most }: Expression & { kind: 'repeat' }, rest: Term): Term {
    if (!looksAround(part)) return this.#sequence(this.#repeat(this.textsOf(part), least, most), rest);
    if (most === Infinity) throw unsupported('a look-ahead, ^ or $ in what repeats without end');
    let next = rest;
    for (let i = most; i > 0; i--) {
      const once = this.textsOf(part, next, false);
      next = i > least ? this.choice([rest, once]) : once;
    }
    return next;
  }

  #characters(ranges: readonly Range[]): Term {
    const plain = merged(intersect(ranges, plainCharacters));
    if (plain.length === 0) return this.nothing;
    const key = plain.join(' ');
    this.#classes.set(key, plain);
    return this.#term({ kind: 'characters', ranges: plain }, `[${key}]`, false);
  }

  #sequence(first: Term, rest: Term): Term {
    this.#step(1);
    if (first === this.nothing || rest === this.nothing) return this.nothing;
    if (first === this.end) return rest;
    if (rest === this.end) return first;
    if (first.kind === 'sequence') return this.#sequence(first.first, this.#sequence(first.rest, rest));
    // The terms of a choice stay apart, so that there are no more of them than places in the expression.
    if (first.kind === 'choice') return this.choice(first.parts.map((part) => this.#sequence(part, rest)));
    const key = `${first.id} then ${rest.id}`;
    return this.#term({ kind: 'sequence', first, rest }, key, first.mayEnd && rest.mayEnd);
  }

  #repeat(part: Term, least: number, most: number): Term {
    if (most === 0 || part === this.end) return this.end;
    if (part === this.nothing) return least === 0 ? this.end : this.nothing;
    if (least === 1 && most === 1) return part;
    const from = part.mayEnd ? 0 : least;
    return this.#term({ kind: 'repeat', part, least: from, most }, `${part.id} ${from} to ${most}`, from === 0);
  }

  #ofParts(kind: 'choice' | 'both', given: readonly Term[], neutral: Term, all: Term): Term {
    const parts = new Set<Term>();
    for (const one of given) {
      for (const part of one.kind === kind ? one.parts : [one]) if (part !== neutral) parts.add(part);
    }
    this.#step(parts.size);
    if (parts.has(all)) return all;
    const [first] = parts;
    if (first === undefined || parts.size === 1) return first ?? neutral;
    const sorted = [...parts].sort((a, b) => a.id - b.id);
    const mayEnd = kind === 'choice' ? sorted.some((part) => part.mayEnd) : sorted.every((part) => part.mayEnd);
    return this.#term({ kind, parts: sorted }, `${kind} ${sorted.map(({ id }) => id).join(' ')}`, mayEnd);
  }

  #term(shape: TermShape, key: string, mayEnd: boolean): Term {
    const known = this.#terms.get(key);
    if (known !== undefined) return known;
    const term = { ...shape, id: this.#terms.size, mayEnd, derivatives: [] };
    this.#terms.set(key, term);
    return term;
  }

  #derivative(term: Term, letter: number, example: number): Term {
    return (term.derivatives[letter] ??= this.#derived(term, letter, example));
  }

  #derived(term: Term, letter: number, example: number): Term {
    this.#step(1);
    const derive = (part: Term): Term => this.#derivative(part, letter, example);
    switch (term.kind) {
      case 'nothing':
      case 'end':
        return this.nothing;
      case 'characters':
        return includes(term.ranges, example) ? this.end : this.nothing;
      case 'sequence': {
        const after = this.#sequence(derive(term.first), term.rest);
        return term.first.mayEnd ? this.choice([after, derive(term.rest)]) : after;
      }
      case 'repeat': {
        const { part, least, most } = term;
        return this.#sequence(derive(part), this.#repeat(part, Math.max(0, least - 1), most - 1));
      }
      case 'choice':
        return this.choice(term.parts.map(derive));
      case 'both':
        return this.both(term.parts.map(derive));
      case 'not':
        return this.not(derive(term.part));
      default:
        return term satisfies never;
    }
  }

  #letters(): Letter[] {
    const classes = [...this.#classes.values()];
    const borders = new Set(plainCharacters.map(([from]) => from));
    for (const [from, to] of classes.flat()) borders.add(from).add(to + 1);
    const starts = [...borders].sort((a, b) => a - b);
    this.#step(starts.length * classes.length);
    const letters = new Map<string, Range[]>();
    for (const [i, from] of starts.entries()) {
      if (!includes(plainCharacters, from)) continue;
      const [range] = intersect([[from, (starts[i + 1] ?? Infinity) - 1]], plainCharacters);
      const key = classes.map((ranges) => (includes(ranges, from) ? '1' : '0')).join('');
      letters.set(key, [...(letters.get(key) ?? []), range!]);
    }
    return [...letters.values()].map((ranges) => ({ ranges, example: ranges[0]![0] }));
  }

  #step(count: number): void {
    this.#steps += count;
    if (this.#steps > this.limits.steps) throw new TooLarge();
  }
}

/** Only states from which a text can end; none where no text fits. */
function withoutDeadEnds(states: readonly State[]): Automaton {
  const from: number[][] = states.map(() => []);
  for (const [i, { edges }] of states.entries()) for (const { to } of edges) from[to]!.push(i);
  const live = new Set([...states.keys()].filter((i) => states[i]!.mayEnd));
  for (const state of live) for (const before of from[state]!) live.add(before);
  if (!live.has(0)) return { states: [] };
  const numbers = new Map([...live].sort((a, b) => a - b).map((state, i) => [state, i]));
  return {
    states: [...numbers.keys()].map((state) => ({
      mayEnd: states[state]!.mayEnd,
      edges: states[state]!.edges.flatMap(({ ranges, to }) => (live.has(to) ? [{ ranges, to: numbers.get(to)! }] : [])),
    })),
  };
}
