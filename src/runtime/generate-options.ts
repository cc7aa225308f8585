/** What a caller may ask of one text, checked. The choice of its tokens is checked in sampling.ts. */
import type { Grammar } from '../text/grammar.js';
import { checkOptions, flag, isObject, isSignal, type Rule } from './check-options.js';
import type { LogprobOptions } from './logprobs.js';
import type { SamplingOptions } from './sampling.js';

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to make at most; default: until the context is full. */
  readonly maxTokens?: number;
  /** Strings that end the text; neither they nor what follows is given out. */
  readonly stop?: readonly string[];
  /** Go on past the tokens that end a text. */
  readonly ignoreEos?: boolean;
  /** The text made is an answer that begins anew, instead of continuing the prompt. Default: true for messages. */
  readonly atStart?: boolean;
  /** Tell how likely tokens were. Takes the time of a call per token. */
  readonly logprobs?: LogprobOptions;
  /** The text follows it (`Model.compileGrammar`). Takes the time of a call per token. Does not go with `ignoreEos`. */
  readonly grammar?: Grammar;
  /** Special tokens that are part of the text, such as the mark of a tool call. */
  readonly textTokens?: readonly number[];
  readonly signal?: AbortSignal;
}

const rules: Readonly<Record<Exclude<keyof GenerateOptions, keyof SamplingOptions>, Rule>> = {
  maxTokens: { holds: (value) => value === Infinity || isWhole(value, 1), must: 'be a whole number from 1' },
  stop: { holds: isListOf((item) => typeof item === 'string'), must: 'be a list of texts' },
  ignoreEos: flag,
  atStart: flag,
  logprobs: { holds: isLogprobOptions, must: 'be { top, prompt? }: a whole number from 0, and true or false' },
  grammar: {
    holds: (value) => isObject(value) && typeof value['open'] === 'function',
    must: 'come from compileGrammar',
  },
  textTokens: { holds: isListOf((item) => isWhole(item, 0)), must: 'be a list of token ids' },
  signal: isSignal,
};

/** Callers may not have checked types. Throws UsageError for the first option of a wrong type or outside its range. */
export function checkGenerateOptions(options: GenerateOptions): void {
  checkOptions(options, rules);
}

function isWhole(value: unknown, min: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= min;
}

/** Holes count as items. */
function isListOf(isItem: (item: unknown) => boolean): (value: unknown) => boolean {
  return (value) => Array.isArray(value) && Array.from<unknown>(value).every(isItem);
}

function isLogprobOptions(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { top, prompt = false } = value;
  return isWhole(top, 0) && typeof prompt === 'boolean';
}
