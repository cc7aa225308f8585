/**
 * Tokens in, certain text out: UTF-8 sequences are completed, stop strings are looked for across token borders, and
 * nothing of a stop string or behind it is ever given out.
 */
import { StopStrings } from '../text/stop-strings.js';
import { StreamDecoder } from '../text/stream-decoder.js';
import type { Tokenizer } from '../text/tokenizer.js';

export interface TextStreamOptions {
  /** Strings that end the text. */
  readonly stop: readonly string[];
  /** The tokens begin a text, instead of continuing one. */
  readonly atStart: boolean;
  /** Special tokens that are text all the same. */
  readonly textTokens?: readonly number[];
}

export interface TextPiece {
  readonly text: string;
  /** How many of the tokens belong to the answer: all, or those up to the one that completed a stop string. */
  readonly kept: number;
  readonly stopped: boolean;
}

export class TextStream {
  readonly #decoder: StreamDecoder;
  readonly #stops: StopStrings;

  /** Throws UsageError for stop strings that are empty, too many or too long. */
  constructor(tokenizer: Tokenizer, { stop, atStart, textTokens = [] }: TextStreamOptions) {
    this.#decoder = new StreamDecoder(tokenizer, { atStart, textTokens });
    this.#stops = new StopStrings(stop);
  }

  push(tokens: readonly number[]): TextPiece {
    let text = '';
    for (const [i, token] of tokens.entries()) {
      const { emit, stopped } = this.#stops.push(this.#decoder.push(token));
      text += emit;
      if (stopped !== undefined) return { text, kept: i + 1, stopped: true };
    }
    return { text, kept: tokens.length, stopped: false };
  }

  /** What was held back, at the end of a text that no stop string ended. An unfinished character may still end one. */
  flush(): string {
    const { emit, stopped } = this.#stops.push(this.#decoder.flush());
    return stopped === undefined ? emit + this.#stops.flush() : emit;
  }
}
