/**
 * Streaming detokenizer: token ids in, text out as soon as it is certain. Tokens cut text at any byte, so the bytes of
 * the tokens go through one UTF-8 decoder that keeps an unfinished sequence to itself. Constant cost per token; the
 * pieces together are exactly `tokenizer.decode` of all ids.
 */
import type { Tokenizer } from './tokenizer.js';

export interface StreamDecoderOptions {
  /** Leave special tokens out. Default true. */
  readonly skipSpecial?: boolean;
  /** Special tokens that are text all the same. */
  readonly textTokens?: readonly number[];
  /**
   * The ids begin a text, so that a SentencePiece tokenizer's artificial leading space is removed (as `decode` does).
   * False when they continue text that is shown already. Default true.
   */
  readonly atStart?: boolean;
}

export class StreamDecoder {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecial: boolean;
  readonly #textTokens: ReadonlySet<number>;
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  /** How many more leading spaces have to go. */
  #spacesToDrop: number;

  constructor(
    tokenizer: Tokenizer,
    { skipSpecial = true, textTokens = [], atStart = true }: StreamDecoderOptions = {},
  ) {
    this.#textTokens = new Set(textTokens);
    this.#tokenizer = tokenizer;
    this.#skipSpecial = skipSpecial;
    this.#spacesToDrop = atStart ? tokenizer.leadingSpaces : 0;
  }

  /** The text that became complete with this token; often empty inside a multi-byte character. */
  push(id: number): string {
    if (this.#skipSpecial && this.#tokenizer.isSpecial(id) && !this.#textTokens.has(id)) return '';
    return this.#dropSpaces(this.#utf8.decode(this.#tokenizer.bytesOf(id), { stream: true }));
  }

  /** Ends the text: an unfinished UTF-8 sequence becomes U+FFFD. */
  flush(): string {
    return this.#dropSpaces(this.#utf8.decode());
  }

  #dropSpaces(text: string): string {
    if (this.#spacesToDrop === 0 || text === '') return text;
    let start = 0;
    while (start < text.length && this.#spacesToDrop > 0 && text[start] === ' ') {
      start++;
      this.#spacesToDrop--;
    }
    if (start < text.length) this.#spacesToDrop = 0;
    return text.slice(start);
  }
}
