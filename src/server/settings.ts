/** What a server may be told, with the defaults: where it listens, who may call it, and how much one request may ask. */
import { maxBiasedTokens } from '../ops/sample.js';

/** Bytes, milliseconds and counts. Every one is checked before the work that it bounds. */
export interface ServerLimits {
  /** Body of a request. */
  readonly bodyBytes: number;
  /** All headers of a request together. */
  readonly headerBytes: number;
  /** Until the whole request has arrived. */
  readonly receiveMs: number;
  /** From there until its answer is complete; what was made until then is the answer. */
  readonly requestMs: number;
  /** How long a client may leave the stream unread before the connection is cut. */
  readonly stallMs: number;
  /** Generations that wait for a slot. */
  readonly queue: number;
  readonly connections: number;
  /** Texts per prompt. */
  readonly choices: number;
  /** Prompts of one request. */
  readonly prompts: number;
  readonly messages: number;
  /** Stop strings of one request. */
  readonly stops: number;
  /** Tokens of `logit_bias`. */
  readonly biases: number;
  /** Tools of one request. */
  readonly tools: number;
  /** Alternatives per token. */
  readonly topLogprobs: number;
}

export const defaultLimits: ServerLimits = {
  bodyBytes: 2 * 1024 * 1024,
  headerBytes: 16 * 1024,
  receiveMs: 30_000,
  requestMs: 600_000,
  stallMs: 60_000,
  queue: 256,
  connections: 1024,
  choices: 16,
  prompts: 64,
  messages: 4096,
  stops: 16,
  biases: maxBiasedTokens,
  tools: 128,
  topLogprobs: 20,
};

export interface Access {
  /** Wanted as `Authorization: Bearer KEY` on every route but /health. */
  readonly apiKey?: string;
  /** Names besides addresses and localhost by which the server may be called; `*` is any. */
  readonly allowedHosts: readonly string[];
  /** Origins of web pages that may call it, such as `https://example.org`; `*` is any. */
  readonly allowedOrigins: readonly string[];
}
