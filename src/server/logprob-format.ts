/** Likelihoods of tokens in the two shapes of the API. */
import type { Likelihood, TokenLogprob } from '../runtime/logprobs.js';
import type { Model } from '../runtime/model.js';
import { StreamDecoder } from '../text/stream-decoder.js';

/** What JSON has no number for. */
const impossible = -9999;

/** As chat completions have it: `{ content: [...] }`. */
export function chatLogprobs(model: Model, logprobs: readonly TokenLogprob[]): object {
  const entry = ({ token, logprob }: Likelihood): object => ({
    token: tokenText(model, token),
    logprob: finite(logprob),
    bytes: [...model.tokenizer.bytesOf(token)],
  });
  // What ends a text is no part of it.
  const shown = logprobs.filter(({ token }) => !model.stopTokens.includes(token));
  const content = shown.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) }));
  return { content, refusal: null };
}

/** Where in a text each of its tokens begins: UTF-16 units, counted as tokens are decoded, whatever is shown of them yet. */
export class TextOffsets {
  readonly #decoder: StreamDecoder;
  #at = 0;

  /** `atStart`: the tokens begin a text, instead of continuing a prompt. */
  constructor({ tokenizer }: Model, atStart = false) {
    this.#decoder = new StreamDecoder(tokenizer, { atStart });
  }

  /** Of the next token. */
  next(token: number): number {
    const start = this.#at;
    this.#at += this.#decoder.push(token).length;
    return start;
  }
}

/**
 * As completions have it: lists by token. A bare token id has no likelihood. `offsets` has seen the tokens before these. The
 * token that came is always among the likely ones, so that its rank can be seen.
 */
export function completionLogprobs(
  model: Model,
  entries: readonly (TokenLogprob | number)[],
  offsets: TextOffsets,
): object {
  const ids = entries.map((entry) => (typeof entry === 'number' ? entry : entry.token));
  const top = (entry: TokenLogprob | number): object | null =>
    typeof entry === 'number'
      ? null
      : Object.fromEntries(
          [entry, ...entry.top].map(({ token, logprob }) => [tokenText(model, token), finite(logprob)]),
        );
  return {
    tokens: ids.map((id) => tokenText(model, id)),
    token_logprobs: entries.map((entry) => (typeof entry === 'number' ? null : finite(entry.logprob))),
    top_logprobs: entries.map(top),
    text_offset: ids.map((id) => offsets.next(id)),
  };
}

function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : impossible;
}

/** The text of a token; bytes that are no text by themselves as `bytes:\xe2\x80`. */
function tokenText({ tokenizer }: Model, token: number): string {
  const bytes = tokenizer.bytesOf(token);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return `bytes:${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
  }
}
