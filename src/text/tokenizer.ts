/**
 * Text to token ids and back, for byte-level BPE (Llama 3, Qwen, SmolLM2) and SentencePiece-style BPE (Llama 2, Mistral,
 * Gemma). Encoding is done by @huggingface/tokenizers on a checked tokenizer.json, under a time limit. Decoding is ours,
 * since streaming needs the bytes of single tokens: the text is the UTF-8 decoding of all bytes in a row.
 */
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { CheckpointError, messageOf, UsageError } from '../util/errors.js';
import { TimeLimit, TimeLimitError } from './time-limit.js';
import { bytesOfName } from './token-bytes.js';
import { checkTokenizerJson, readTokenizerJson, tokenizerLimits, type TokenizerLimits } from './tokenizer-file.js';

export interface Tokenizer {
  /**
   * Token ids of `text`; the text of an added token (such as '<|eot_id|>') is recognized as that token. `addSpecial`:
   * also the tokens that the file's post-processor adds, usually BOS; default true. Throws UsageError for a text beyond
   * the limit, CheckpointError when the file's patterns take unreasonably long on it.
   */
  encode(text: string, options?: { readonly addSpecial?: boolean }): number[];
  /**
   * The text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids without a token contribute nothing. Unlike some
   * configurations ask for, no spaces before punctuation are removed: that would damage code. `skipSpecial`: default true.
   */
  decode(ids: readonly number[], options?: { readonly skipSpecial?: boolean }): string;
  /** One more than the largest token id. The model's embedding may have more rows than that. */
  readonly vocabSize: number;
  /** How many spaces at the very start of a decoded text are artificial and removed (SentencePiece: 1). */
  readonly leadingSpaces: number;
  tokenId(text: string): number | undefined;
  /** The bytes that the token contributes to the text, often a part of a UTF-8 sequence; empty for an unknown id. */
  bytesOf(id: number): Uint8Array;
  isSpecial(id: number): boolean;
}

/** What we use of the library, whose own declarations do not resolve under Node's module rules. */
type EncoderClass = new (
  json: object,
  config: object,
) => {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  token_to_id(text: string): number | undefined;
};

/**
 * Loads tokenizer.json; `tokenizerConfig` is the parsed tokenizer_config.json, which may declare more special tokens.
 * Throws CheckpointError when the file is missing or broken, UnsupportedModelError when it is of another family.
 */
export function loadTokenizer(
  tokenizerJsonPath: string,
  tokenizerConfig: object = {},
  limits: Partial<TokenizerLimits> = {},
): Tokenizer {
  const json = readTokenizerJson(tokenizerJsonPath, { ...tokenizerLimits, ...limits });
  return createTokenizer(tokenizerJsonPath, json, tokenizerConfig, limits);
}

/** As loadTokenizer, from the parsed JSON; `file` names it in errors. */
export function createTokenizer(
  file: string,
  json: unknown,
  tokenizerConfig: object = {},
  limits: Partial<TokenizerLimits> = {},
): Tokenizer {
  const bounds = { ...tokenizerLimits, ...limits };
  const { json: checked, names, added, special, rule } = checkTokenizerJson(file, json, tokenizerConfig, bounds);
  const timeLimit = new TimeLimit();
  const guarded = <T>(limitMs: number, what: string, task: () => T): T => {
    try {
      return timeLimit.run(limitMs, task);
    } catch (error) {
      const problem = error instanceof TimeLimitError ? error.message : `failed: ${messageOf(error)}`;
      throw new CheckpointError(file, `${what} ${problem}`, {
        hint: 'check the patterns of the tokenizer',
        cause: error,
      });
    }
  };
  const encoder = guarded(
    bounds.loadMs,
    'setting up the tokenizer',
    () => new (LibraryTokenizer as EncoderClass)(checked, {}),
  );

  const bytesOf = (id: number): Uint8Array => {
    const name = names[id];
    return name === undefined ? new Uint8Array() : bytesOfName(name, rule, added.has(id));
  };
  return {
    vocabSize: names.length,
    leadingSpaces: rule.leadingSpaces,
    encode(text, { addSpecial = true } = {}) {
      if (text.length > bounds.textLength) {
        throw new UsageError(`a text of ${text.length} characters is too long to tokenize`, {
          hint: `shorten it to ${bounds.textLength}`,
        });
      }
      return guarded(
        bounds.encodeMs,
        `tokenizing ${text.length} characters`,
        () => encoder.encode(text, { add_special_tokens: addSpecial }).ids,
      );
    },
    decode(ids, { skipSpecial = true } = {}) {
      const kept = skipSpecial ? ids.filter((id) => !special.has(id)) : ids;
      const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(kept.map(bytesOf)));
      let start = 0;
      while (start < rule.leadingSpaces && text[start] === ' ') start++;
      return text.slice(start);
    },
    tokenId: (text) => encoder.token_to_id(text),
    bytesOf,
    isSpecial: (id) => special.has(id),
  };
}
