/** A model under the name that clients call it by, with the pool that shares its slots among requests. */
import { shorterPrompt } from '../runtime/check-prompt.js';
import type { Model } from '../runtime/model.js';
import { SessionPool } from '../runtime/session-pool.js';
import { ContextOverflowError } from '../util/errors.js';
import type { ServerLimits } from './settings.js';

/** Seconds: what a client is told to wait, at least and at most. */
const leastRetry = 1;
const mostRetry = 60;

export class ServedModel {
  readonly id: string;
  readonly pool: SessionPool;
  /** Unix time at which it was loaded. */
  readonly created = Math.floor(Date.now() / 1000);
  /** UTF-8 bytes of the longest text that can fit the context. */
  readonly #longestText: number;
  /** Smoothed seconds that a text takes. */
  #secondsPerText = 0;

  constructor(
    readonly model: Model,
    limits: ServerLimits,
  ) {
    this.id = model.name;
    this.pool = new SessionPool(model, { queueLimit: limits.queue });
    let longestToken = 1;
    for (let id = 0; id < model.tokenizer.vocabSize; id++) {
      longestToken = Math.max(longestToken, model.tokenizer.bytesOf(id).length);
    }
    this.#longestText = longestToken * model.limits.context;
  }

  /**
   * Throws ContextOverflowError for texts that would take long to tokenize only to find that they are too long: while one
   * is tokenized, nobody else is answered.
   */
  checkTexts(texts: readonly string[]): void {
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    if (bytes <= this.#longestText) return;
    const { config, limits } = this.model;
    const { context } = limits;
    throw new ContextOverflowError(context, `the prompt has ${bytes} bytes, more than ${context} tokens can hold`, {
      hint: shorterPrompt(context, config.context),
    });
  }

  /** Tells what computes an answer; changes where a text may change. */
  get fingerprint(): string {
    const { backend, quant, schedule } = this.model;
    return `kloop-${backend}-${quant}-${schedule}`;
  }

  /** A text took this long, once it had a slot. */
  recordText(seconds: number): void {
    this.#secondsPerText = this.#secondsPerText === 0 ? seconds : 0.8 * this.#secondsPerText + 0.2 * seconds;
  }

  /** Seconds after which half of what waits now will have been served. */
  get retryAfter(): number {
    const seconds = Math.ceil((this.#secondsPerText * this.pool.waiting) / this.pool.slots / 2);
    return Math.max(leastRetry, Math.min(mostRetry, seconds));
  }

  /** Ends all texts and frees the model. */
  async close(): Promise<void> {
    this.pool.close();
    await this.model.close();
  }
}
