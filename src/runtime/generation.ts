/**
 * A text in the making: iterate over its pieces as they come, or wait for the result. It runs whether or not somebody
 * iterates; leaving a `for await` early stops it, and its session is free when the loop has ended. Every piece is given
 * once, so one reader at a time may iterate; the result is for everybody.
 */
import { UsageError } from '../util/errors.js';
import type { TokenLogprob } from './logprobs.js';
import type { Usage } from './usage.js';

/** What became certain in one call, or with one token of it where the machine shows them; sometimes no text yet. */
export interface Piece {
  readonly text: string;
  readonly tokens: readonly number[];
  /** Of these tokens, where they were asked for. */
  readonly logprobs?: readonly TokenLogprob[];
}

/** `stop`: a stop token or string; `length`: the token limit or the context; `abort`: the caller stopped it. */
export type FinishReason = 'stop' | 'length' | 'abort';

export interface GenerationResult {
  /** The text made, without stop tokens and stop strings. */
  readonly text: string;
  readonly promptTokens: readonly number[];
  /** All tokens made, the stop token included. */
  readonly tokens: readonly number[];
  /** Of these tokens, where they were asked for. */
  readonly logprobs?: readonly TokenLogprob[];
  /** Of the prompt's tokens but the first, which comes after nothing; where they were asked for. */
  readonly promptLogprobs?: readonly TokenLogprob[];
  readonly finishReason: FinishReason;
  /** It ended with `length` because the context of the session is full. */
  readonly contextFull: boolean;
  /** The seed that was used; with it and the same settings the same text comes again. */
  readonly seed: number;
  /** How many prompt tokens were in the session's cache already. */
  readonly cachedTokens: number;
  /** From the call to the first token, and from there to the last, in milliseconds. */
  readonly timings: { readonly prefillMs: number; readonly decodeMs: number };
  /** What the executable counted until the first token, and after it. */
  readonly counters: { readonly prefill: Usage; readonly decode: Usage };
}

export type GenerationTask = (emit: (piece: Piece) => void, signal: AbortSignal) => Promise<GenerationResult>;

export class Generation implements AsyncIterable<Piece> {
  /** Rejects where the prompt cannot be run or the backend failed; an abort is a result. */
  readonly result: Promise<GenerationResult>;
  readonly #controller = new AbortController();
  #pieces: Piece[] = [];
  #ended = false;
  #read = false;
  #wake: () => void = () => undefined;

  constructor(task: GenerationTask, signal?: AbortSignal) {
    const own = this.#controller.signal;
    const combined = signal === undefined ? own : AbortSignal.any([own, signal]);
    const emit = (piece: Piece): void => {
      this.#pieces.push(piece);
      this.#wake();
    };
    this.result = task(emit, combined).finally(() => {
      this.#ended = true;
      this.#wake();
    });
    // Who only iterates gets the error there.
    this.result.catch(() => undefined);
  }

  /** Stops after the token under way; what was made so far is the result. */
  abort(): void {
    this.#controller.abort();
  }

  /** Throws UsageError while another reader iterates, and what `result` rejects with. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Piece, GenerationResult, undefined> {
    if (this.#read) {
      throw new UsageError('somebody iterates over this generation already', {
        hint: 'hand its pieces on from one loop, or wait for its result',
      });
    }
    this.#read = true;
    try {
      for (;;) {
        const pieces = this.#pieces;
        this.#pieces = [];
        yield* pieces;
        if (this.#pieces.length > 0) continue;
        if (this.#ended) return await this.result;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.abort();
      await this.result.catch(() => undefined);
      this.#read = false;
    }
  }
}
