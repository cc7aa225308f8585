/**
 * One generation as the scheduler sees it: rows still to be fed, then one token after the other. A sequence is in its
 * prompt until the last prompt row has been fed (which makes the first token), and decodes from then on.
 */
import type { SampleSettings } from '../backends/backend.js';
import { assert } from '../util/assert.js';
import { sampleSettings, type Sampling } from './sampling.js';
import { addUsage, noUsage, type Usage } from './usage.js';

/** What a session asks the scheduler for. */
export interface Request {
  readonly slot: number;
  /** Tokens whose keys and values are not in the slot yet; at least one. */
  readonly prompt: readonly number[];
  /** Position of the first of them. */
  readonly position: number;
  readonly sampling: Sampling;
  /** At least 1; position + prompt length + maxTokens is at most the context plus one. */
  readonly maxTokens: number;
  readonly stopTokens: readonly number[];
  readonly signal?: AbortSignal;
  readonly scores?: ScoreRequest;
  /** What may come next, found out anew after every token; steps make one token each then. */
  readonly constraint?: Constraint;
  /** Takes tokens as they become known, a stop token included; returns false when that was enough (a stop string). */
  onTokens(tokens: readonly number[]): boolean;
}

/** Says after every token which ones may follow. */
export interface Constraint {
  /** A bit per token of the vocabulary; undefined until it is known; no bit where the text is complete. */
  readonly allowed: Int32Array | undefined;
  readonly failure: Error | undefined;
  /** Settles when one of them is there. */
  readonly ready: Promise<void>;
  accept(token: number): void;
}

/** Wants to see the logits that tokens came from; steps make one token each then. */
export interface ScoreRequest {
  /** Also those of the prompt's tokens. */
  readonly prompt: boolean;
  /** `logits` (vocabulary) is of the place of `token`, at `position`; valid during the call. Called in order. */
  onLogits(token: number, position: number, logits: Float32Array): void;
}

/** `stop`: a stop token or string; `length`: maxTokens were made; `abort`: the caller's signal. */
export type StopReason = 'stop' | 'length' | 'abort';

export interface Outcome {
  readonly reason: StopReason;
  /** Positions 0 .. filled - 1 of the slot hold the keys and values of prompt and answer. */
  readonly filled: number;
  /** From the request to its first token, and from there to the end. */
  readonly prefillMs: number;
  readonly decodeMs: number;
  readonly prefill: Usage;
  readonly decode: Usage;
}

export class Sequence {
  readonly outcome: Promise<Outcome>;
  aborted = false;
  ended = false;
  #resolve!: (outcome: Outcome) => void;
  #reject!: (error: unknown) => void;
  /** Prompt rows that have been fed. */
  #fed = 0;
  #made = 0;
  #lastToken = -1;
  #position: number;
  #prefill: Usage = noUsage;
  #decode: Usage = noUsage;
  /** Steps count as decode from the one on that follows the first token. */
  #decoding = false;
  /** Why nothing more is taken, though the step that it was found in has not ended. */
  #enough: StopReason | undefined;
  readonly #startMs: number;
  #firstTokenMs: number | undefined;

  constructor(
    readonly request: Request,
    private readonly now: () => number,
  ) {
    assert(request.prompt.length > 0 && request.maxTokens > 0, 'an empty request');
    this.#position = request.position;
    this.#startMs = now();
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Rows of the prompt that are still to be fed; 0 means that it decodes. */
  get promptRows(): number {
    return this.request.prompt.length - this.#fed;
  }

  get remaining(): number {
    return this.request.maxTokens - this.#made;
  }

  /** Position of the next row. */
  get position(): number {
    return this.#position;
  }

  /** The next `count` rows: of the prompt, or the token made last. */
  nextRows(count: number): readonly number[] {
    if (this.promptRows === 0) return [this.#lastToken];
    return this.request.prompt.slice(this.#fed, this.#fed + count);
  }

  settings(): SampleSettings {
    const { sampling, position, prompt, constraint } = this.request;
    const settings = sampleSettings(sampling, this.remaining, position + prompt.length);
    return constraint?.allowed === undefined ? settings : { ...settings, allowed: constraint.allowed };
  }

  /** Settles when it can take part in a step again; undefined where it can. */
  get pending(): Promise<void> | undefined {
    const { constraint } = this.request;
    return constraint === undefined || constraint.allowed !== undefined ? undefined : constraint.ready;
  }

  /** Ends it where its constraint lets nothing follow, or has failed. */
  obeyConstraint(): void {
    const { constraint } = this.request;
    if (this.ended || constraint === undefined) return;
    if (constraint.failure !== undefined) this.fail(constraint.failure);
    else if (constraint.allowed?.every((word) => word === 0) === true) this.finish('stop');
  }

  /** Tells the logits of the last of the `rows` fed in a step; the very last one made the token `made`, if any. */
  score(rows: number, logits: readonly Float32Array[], made: number | undefined): void {
    const first = rows - logits.length;
    for (const [i, row] of logits.entries()) {
      // The token behind a row: the next one of the prompt, or the one made.
      const token = this.request.prompt[this.#fed + first + i + 1] ?? made;
      if (token !== undefined) this.request.scores?.onLogits(token, this.#position + first + i + 1, row);
    }
  }

  /** `rows` prompt rows were fed, and no token came of it. */
  advancePrompt(rows: number): void {
    this.#fed += rows;
    this.#position += rows;
  }

  /** It wants no more tokens of the step that is under way. */
  get satisfied(): boolean {
    return this.ended || this.#enough !== undefined;
  }

  /** A step made `tokens`, and may make more: cuts them at the stop token and hands them on. */
  take(tokens: readonly number[]): void {
    if (this.satisfied || tokens.length === 0) return;
    this.#position += Math.max(0, this.promptRows - 1);
    this.#fed = this.request.prompt.length;
    this.#firstTokenMs ??= this.now();
    const stopAt = tokens.findIndex((token) => this.request.stopTokens.includes(token));
    const kept = tokens.slice(0, Math.min(stopAt < 0 ? tokens.length : stopAt + 1, this.remaining));
    this.#made += kept.length;
    // Every token came from a row; the last one made has not been fed.
    this.#position += kept.length;
    this.#lastToken = kept.at(-1)!;
    const wantsMore = this.request.onTokens(kept);
    if (stopAt >= 0 || !wantsMore) this.#enough = 'stop';
    else if (this.remaining === 0) this.#enough = 'length';
    else for (const token of kept) this.request.constraint?.accept(token);
  }

  /** A step that it took part in has ended, and so does it where it has had enough. */
  endStep(usage: Usage): void {
    if (this.#decoding) this.#decode = addUsage(this.#decode, usage);
    else this.#prefill = addUsage(this.#prefill, usage);
    this.#decoding = this.promptRows === 0;
    if (this.#enough !== undefined && !this.ended) this.finish(this.#enough);
  }

  finish(reason: StopReason): void {
    const endMs = this.now();
    const firstTokenMs = this.#firstTokenMs ?? endMs;
    this.ended = true;
    this.#resolve({
      reason,
      filled: this.#position,
      prefillMs: firstTokenMs - this.#startMs,
      decodeMs: endMs - firstTokenMs,
      prefill: this.#prefill,
      decode: this.#decode,
    });
  }

  fail(error: unknown): void {
    this.ended = true;
    this.#reject(error);
  }
}
