/**
 * What a caller may say about the choice of the next token, checked, with the defaults filled in. The choice itself is
 * the operator `sample`, inside the kernel.
 */
import { randomInt } from 'node:crypto';
import type { SampleSettings } from '../backends/backend.js';
import { samplingRanges, type Range } from '../checkpoint/sampling-ranges.js';
import { maxBiasedTokens } from '../ops/sample.js';
import { UsageError } from '../util/errors.js';
import { isNumber, shown } from './check-options.js';

/** Absent fields are off; an absent temperature is 0, which is greedy. */
export interface SamplingOptions {
  /** 0 is greedy; higher is more varied. */
  readonly temperature?: number;
  /** Only the K most likely tokens; 0 is off. */
  readonly topK?: number;
  /** Only the most likely tokens that together have this probability; 1 is off. */
  readonly topP?: number;
  /** Only tokens at least this likely relative to the most likely one; 0 is off. */
  readonly minP?: number;
  /** Divides the scores of tokens that are in the context already; 1 is off. */
  readonly repetitionPenalty?: number;
  /** Taken from the score of a token that was made already; 0 is off. Prompts do not count. */
  readonly presencePenalty?: number;
  /** The same, once for every time it was made; 0 is off. */
  readonly frequencyPenalty?: number;
  /** Added to the scores of these tokens before all else: [token id, from -100 to 100], at most 300, each token once. */
  readonly bias?: readonly TokenBias[];
  /** A whole number from 0 to 2^53 - 1; random where absent. The same seed gives the same text. */
  readonly seed?: number;
}

export type TokenBias = readonly [token: number, bias: number];

export type Sampling = Required<SamplingOptions>;

const ranges: Readonly<Record<Exclude<keyof SamplingOptions, 'bias'>, Range>> = {
  ...samplingRanges,
  presencePenalty: { min: -100, max: 100 },
  frequencyPenalty: { min: -100, max: 100 },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
};

/**
 * Fills in the defaults, with a random seed where none is given. Throws UsageError for a value of the wrong type or outside
 * its range.
 */
export function resolveSampling(options: SamplingOptions = {}): Sampling {
  for (const name of Object.keys(ranges) as (keyof typeof ranges)[]) {
    const value = options[name];
    const { min, max, integer } = ranges[name];
    if (value === undefined) continue;
    if (isNumber(value) && value >= min && value <= max && (integer !== true || Number.isInteger(value))) continue;
    throw new UsageError(
      `${name} is ${shown(value)}, must be a ${integer ? 'whole ' : ''}number from ${min} to ${max}`,
    );
  }
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  const { presencePenalty = 0, frequencyPenalty = 0, bias = [], seed = randomInt(2 ** 47) } = options;
  checkBias(bias);
  return { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, bias, seed };
}

function checkBias(bias: readonly TokenBias[]): void {
  if (!isListOfPairs(bias)) {
    throw new UsageError(`bias is ${shown(bias)}, must be a list of [token id, number from -100 to 100]`);
  }
  if (bias.length > maxBiasedTokens) {
    throw new UsageError(`${bias.length} tokens are biased, at most ${maxBiasedTokens} may be`);
  }
  const wrong = bias.find(([token, value]) => !Number.isInteger(token) || token < 0 || !(Math.abs(value) <= 100));
  if (wrong !== undefined)
    throw new UsageError(`a bias of ${wrong[1]} for token ${wrong[0]}, must be from -100 to 100`);
  if (new Set(bias.map(([token]) => token)).size < bias.length) throw new UsageError('a token is biased twice');
}

function isListOfPairs(bias: unknown): boolean {
  if (!Array.isArray(bias)) return false;
  const entries = Array.from<unknown>(bias);
  return entries.every((entry) => Array.isArray(entry) && entry.length === 2 && entry.every(isNumber));
}

/** Throws UsageError for biased tokens that a vocabulary of this size has not. */
export function checkBiasedTokens(bias: readonly TokenBias[], vocab: number): void {
  const wrong = bias.find(([token]) => token >= vocab);
  if (wrong !== undefined) throw new UsageError(`bias: token ${wrong[0]} is not one of the model, which has ${vocab}`);
}

/** The settings of a sample that may still make `remaining` tokens; the first one got the position `madeFrom`. */
export function sampleSettings(sampling: Sampling, remaining: number, madeFrom: number): SampleSettings {
  const { seed, ...settings } = sampling;
  return { ...settings, madeFrom, seed: [seed % 2 ** 32, Math.floor(seed / 2 ** 32)], remaining };
}
