/**
 * Stop strings over streamed text. Each stop string has a Knuth-Morris-Pratt automaton whose state is the length of its
 * longest prefix that the text so far ends in; the largest state is what has to be held back. The first stop string to
 * be complete wins (of several that end at the same place, the longest), so the result does not depend on how the text
 * is cut into tokens. Cost: O(stop strings) per character.
 */
import { UsageError } from '../util/errors.js';

/** How many stop strings are allowed, and how long each may be in UTF-16 units. */
export const stopStringLimits = { count: 64, length: 1024 } as const;

/** What a push releases: text that is certainly before any stop string, and the stop string if one is complete. */
export interface StopResult {
  readonly emit: string;
  readonly stopped: string | undefined;
}

export class StopStrings {
  readonly #automata: readonly Automaton[];
  #held = '';
  #stopped: string | undefined;

  /** Throws UsageError for an empty stop string, and beyond stopStringLimits. */
  constructor(stops: readonly string[]) {
    if (stops.length > stopStringLimits.count) {
      throw new UsageError(`${stops.length} stop strings, at most ${stopStringLimits.count} are allowed`);
    }
    for (const stop of stops) {
      if (stop === '') throw new UsageError('a stop string is empty', { hint: 'leave it out' });
      if (stop.length > stopStringLimits.length) {
        throw new UsageError(
          `a stop string has ${stop.length} characters, at most ${stopStringLimits.length} are allowed`,
        );
      }
    }
    this.#automata = stops.map((stop) => new Automaton(stop));
  }

  /** Takes the next piece of text. After a stop string was hit, nothing is emitted any more. */
  push(text: string): StopResult {
    if (this.#stopped !== undefined) return { emit: '', stopped: this.#stopped };
    const known = this.#held + text;
    for (let i = this.#held.length; i < known.length; i++) {
      const stop = this.#step(known.charCodeAt(i));
      if (stop === undefined) continue;
      this.#stopped = stop;
      this.#held = '';
      return { emit: known.slice(0, i + 1 - stop.length), stopped: stop };
    }
    const hold = this.#automata.reduce((longest, automaton) => Math.max(longest, automaton.state), 0);
    this.#held = known.slice(known.length - hold);
    return { emit: known.slice(0, known.length - hold), stopped: undefined };
  }

  /** The text still held back: the generation ended without completing a stop string. */
  flush(): string {
    const held = this.#held;
    this.#held = '';
    for (const automaton of this.#automata) automaton.reset();
    return held;
  }

  #step(unit: number): string | undefined {
    let hit: string | undefined;
    for (const automaton of this.#automata) {
      if (automaton.step(unit) && (hit === undefined || automaton.stop.length > hit.length)) hit = automaton.stop;
    }
    return hit;
  }
}

class Automaton {
  /** Length of the longest prefix of `stop` that the text so far ends in. */
  state = 0;
  /** fallback[n]: the longest proper prefix of stop[0..n) that is also its suffix. */
  readonly #fallback: Uint16Array;

  constructor(readonly stop: string) {
    this.#fallback = new Uint16Array(stop.length + 1);
    for (let n = 1, k = 0; n < stop.length; n++) {
      while (k > 0 && stop[n] !== stop[k]) k = this.#fallback[k]!;
      if (stop[n] === stop[k]) k++;
      this.#fallback[n + 1] = k;
    }
  }

  /** Reads one UTF-16 unit; true when the stop string is complete. */
  step(unit: number): boolean {
    while (this.state > 0 && this.stop.charCodeAt(this.state) !== unit) this.state = this.#fallback[this.state]!;
    if (this.stop.charCodeAt(this.state) === unit) this.state++;
    return this.state === this.stop.length;
  }

  reset(): void {
    this.state = 0;
  }
}
