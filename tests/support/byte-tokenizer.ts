/** A tokenizer with one token per byte: token 10 + b is byte b, tokens 0 .. 9 are special, and 1 begins a text. */
import type { Tokenizer } from '../../src/text/tokenizer.js';

export const byteTokenizer: Tokenizer = {
  vocabSize: 266,
  leadingSpaces: 0,
  encode: (text, { addSpecial = true } = {}) => [...(addSpecial ? [1] : []), ...tokensOf(text)],
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids.filter((id) => id >= 10).map((id) => id - 10))),
  tokenId: () => undefined,
  bytesOf: (id) => (id < 10 ? new Uint8Array() : Uint8Array.of(id - 10)),
  isSpecial: (id) => id < 10,
};

/** The tokens of a text, without a beginning. */
export function tokensOf(text: string): number[] {
  return [...new TextEncoder().encode(text)].map((byte) => byte + 10);
}
