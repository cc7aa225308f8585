/** What is run: the sizes that were asked for, checked against the model, and the numbers of threads to try. */
import type { MemoryNeed } from '../backends/backend.js';
import type { Limits } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { defaultRows } from '../runtime/load-model.js';
import { UsageError } from '../util/errors.js';
import { shortDepth, type Workload } from './workload.js';

/** Absent fields are chosen to fit the model. */
export interface Sizes {
  /** Tokens to decode; 0 leaves decoding out. Default 128. */
  readonly tokens?: number;
  /** Tokens of the prompt; 0 leaves prefill out. Default 512. */
  readonly promptTokens?: number;
  /** Tokens of the prompt before timed decoding. Default 8, on a GPU 32. */
  readonly depth?: number;
  /** More depths to decode at; those that the context cannot hold are left out. */
  readonly contexts?: readonly number[];
  /** Positions of the KV cache. Default: as many as needed. */
  readonly context?: number;
}

export interface Plan {
  readonly workloads: readonly Workload[];
  readonly limits: Limits;
  readonly depth: number;
  /** Of the contexts asked for, those that do not fit. */
  readonly skipped: readonly SkippedContext[];
}

/** A context that is not measured: the model has fewer positions, or what is there is less than all variants `need`. */
export interface SkippedContext {
  readonly depth: number;
  readonly need?: MemoryNeed;
}

/** llama.cpp rounds contexts up to a multiple of this. */
const contextUnit = 256;

/**
 * Throws UsageError where the model's context is too short for what was asked for.
 * @param defaultDepth where `sizes` names none
 */
export function planRun(config: ModelConfig, sizes: Sizes, defaultDepth = shortDepth): Plan {
  const limit = Math.min(config.context, sizes.context ?? config.context);
  if (sizes.context !== undefined && sizes.context > config.context) {
    throw new UsageError(`a context of ${sizes.context} is more than the ${config.context} of the model`);
  }
  const depth = sizes.depth ?? Math.min(defaultDepth, limit - 1);
  if (depth >= limit) {
    throw new UsageError(`a depth of ${depth} leaves no token of a context of ${limit}`, { hint: 'ask for fewer' });
  }
  // One token is made in any case, to compare.
  const tokens = sizes.tokens ?? Math.min(128, limit - depth);
  const promptTokens = sizes.promptTokens ?? Math.min(512, limit);
  const contexts = sizes.contexts ?? [];
  if (tokens === 0 && contexts.length > 0) {
    throw new UsageError('no tokens are decoded at the contexts asked for', { hint: 'ask for some tokens' });
  }
  const fits = (at: number): boolean => at + tokens <= limit;
  const depths = [...new Set([depth, ...contexts.filter(fits)])];
  const deepest = Math.max(...depths);
  const needed = Math.max(promptTokens, depth + Math.max(tokens, 1));
  if (depth < 1 || needed > limit) {
    throw new UsageError(
      `${promptTokens} prompt tokens, or ${tokens} tokens after ${depth}, do not fit a context of ${limit}`,
      { hint: 'ask for fewer' },
    );
  }
  if (tokens + promptTokens === 0) throw new UsageError('there is nothing to measure', { hint: 'ask for some tokens' });
  const context =
    sizes.context ??
    Math.min(config.context, Math.ceil(Math.max(needed, deepest + tokens) / contextUnit) * contextUnit);
  const workloads: Workload[] = [];
  if (tokens > 0) for (const at of depths) workloads.push({ kind: 'decode', tokens, depth: at });
  if (promptTokens > 0) workloads.push({ kind: 'prefill', tokens: promptTokens });
  const rows = Math.min(defaultRows, Math.max(promptTokens, deepest));
  return {
    ...{ workloads, limits: { rows, samples: 1, slots: 1, context }, depth },
    skipped: contexts.filter((at) => !fits(at)).map((at) => ({ depth: at })),
  };
}

/** Powers of two below `cores`, and `cores`: what to try to find the best number of threads. */
export function threadCounts(cores: number): number[] {
  const counts: number[] = [];
  for (let count = 1; count < cores; count *= 2) counts.push(count);
  return [...counts, cores];
}
