/**
 * An executable without a model: the next token is a hash of everything before it in the slot, so that a row that is
 * missing, doubled or in the wrong place changes all that follows. It records its steps and checks their form.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Counters, Executable, Step, StepResult, TokenListener } from '../../src/backends/backend.js';
import { AbortedError } from '../../src/util/errors.js';

export interface FakeOptions {
  readonly vocab?: number;
  /** Overrides the hash: the token after `context`. */
  readonly next?: (context: readonly number[]) => number;
  /** Throws what it likes before a step runs. */
  readonly before?: (step: Step) => void;
  /** Called after every token step inside a call. */
  readonly afterToken?: () => void;
  /** Tells tokens while a call runs. */
  readonly showsTokens?: boolean;
  /** Rejects aborted calls instead of returning what was made. */
  readonly rejectAborts?: boolean;
}

/** What the fake makes of `context`; tokens 0 .. 9 are never made, so that tests can use them as stop tokens. */
export function hashedNext(context: readonly number[], vocab = 300): number {
  let hash = 2166136261;
  for (const token of context) hash = Math.imul(hash ^ token, 16777619) >>> 0;
  return 10 + (hash % (vocab - 10));
}

/** The `count` tokens after `prompt`, computed without an executable. */
export function continuation(prompt: readonly number[], count: number, next = hashedNext): number[] {
  const all = [...prompt];
  for (let i = 0; i < count; i++) all.push(next(all));
  return all.slice(prompt.length);
}

/** The first token from this one on that a mask allows. */
function nearestAllowed(token: number, allowed: Int32Array | undefined): number {
  if (allowed === undefined) return token;
  const tokens = allowed.length * 32;
  for (let i = 0; i < tokens; i++) {
    const id = (token + i) % tokens;
    if (((allowed[id >> 5]! >> (id & 31)) & 1) === 1) return id;
  }
  throw new Error('a mask that allows nothing');
}

export class FakeExecutable implements Executable {
  readonly threads = 2;
  readonly showsTokens: boolean;
  /** Calls that somebody listened to. */
  listened = 0;
  readonly steps: Step[] = [];
  readonly slots = new Map<number, number[]>();
  aborts = 0;
  closed = false;
  readonly #counters = { kernelCalls: 0, barriers: 0, tokens: 0, bytesRead: 0, waitNs: 0 };
  #aborted = false;
  #busy = false;

  constructor(private readonly options: FakeOptions = {}) {
    this.showsTokens = options.showsTokens ?? false;
  }

  get counters(): Counters {
    return this.#counters;
  }

  async run(step: Step, onToken?: TokenListener): Promise<StepResult> {
    if (this.#busy || this.closed) throw new Error('the fake is busy or closed');
    this.steps.push(step);
    this.#busy = true;
    this.#aborted = false;
    try {
      this.options.before?.(step);
      if (onToken !== undefined) this.listened++;
      return await this.#run(step, onToken);
    } finally {
      this.#busy = false;
    }
  }

  abort(): void {
    this.aborts++;
    if (this.#busy) this.#aborted = true;
  }

  reset(): Promise<void> {
    this.slots.clear();
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  async #run(step: Step, onToken: TokenListener | undefined): Promise<StepResult> {
    if (step.steps > 1 && step.index.length !== step.tokens.length) throw new Error('rows that are no samples');
    if (step.sampling.length !== step.index.length) throw new Error('settings and samples differ in number');
    if (step.stopTokens.length > 16) throw new Error('more than 16 stop tokens');
    step.tokens.forEach((token, row) => this.#feed(step.slots[row]!, step.positions[row]!, token));
    const made: number[][] = [...step.index].map(() => []);
    const done = made.map(() => false);
    const row = [...step.index].map((index) => ({ slot: step.slots[index]!, position: step.positions[index]! }));
    this.#count();
    for (let token = 0; token < step.steps && !done.every(Boolean); token++) {
      if (token > 0) this.#count();
      for (const [sample, at] of row.entries()) {
        if (done[sample]) continue;
        const last = made[sample]!.at(-1);
        if (last !== undefined) this.#feed(at.slot, ++at.position, last);
        const wanted = (this.options.next ?? hashedNext)(this.slots.get(at.slot)!.slice(0, at.position + 1));
        const next = nearestAllowed(wanted, step.sampling[sample]!.allowed);
        made[sample]!.push(next);
        onToken?.(sample, next);
        this.#counters.tokens++;
        done[sample] = step.stopTokens.includes(next) || made[sample]!.length >= step.sampling[sample]!.remaining;
      }
      this.options.afterToken?.();
      await nextTurn();
      if (this.#aborted) {
        if (this.options.rejectAborts) throw new AbortedError('stopped');
        break;
      }
    }
    return step.wantLogits === true ? { tokens: made, done, logits: this.#logits(made) } : { tokens: made, done };
  }

  /** The token made last has 5, what follows it in the vocabulary 4, 3, ..., and all others 0. */
  #logits(made: readonly (readonly number[])[]): Float32Array {
    const vocab = this.options.vocab ?? 300;
    const logits = new Float32Array(made.length * vocab);
    for (const [sample, tokens] of made.entries()) {
      for (let i = 0; i < 5; i++) logits[sample * vocab + ((tokens.at(-1)! + i) % vocab)] = 5 - i;
    }
    return logits;
  }

  #feed(slot: number, position: number, token: number): void {
    const filled = this.slots.get(slot) ?? [];
    if (position > filled.length) throw new Error(`slot ${slot}: position ${position} after ${filled.length} rows`);
    filled[position] = token;
    filled.length = position + 1;
    this.slots.set(slot, filled);
  }

  #count(): void {
    this.#counters.kernelCalls += 4;
    this.#counters.barriers += 3;
    this.#counters.bytesRead += 1000;
  }
}
