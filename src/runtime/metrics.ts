/** What `run`, `bench` and a server print about a generation: rates over the tokens after the first. */
import type { GenerationResult } from './generation.js';

/** Rates are null where there is nothing to measure: fewer than two tokens. */
export interface Metrics {
  /** All calls of this generation, prompt included. */
  readonly kernelCalls: number;
  readonly kernelCallsPerToken: number | null;
  readonly barriersPerToken: number | null;
  readonly bytesPerToken: number | null;
  readonly tokensPerSecond: number | null;
}

export function metricsOf({ counters, timings, tokens }: GenerationResult): Metrics {
  const { prefill, decode } = counters;
  const perToken = (count: number): number | null => (decode.tokens === 0 ? null : count / decode.tokens);
  // The first token belongs to the prompt, which made it.
  const decoded = tokens.length - 1;
  return {
    kernelCalls: prefill.kernelCalls + decode.kernelCalls,
    kernelCallsPerToken: perToken(decode.kernelCalls),
    barriersPerToken: perToken(decode.barriers),
    bytesPerToken: perToken(decode.bytesRead),
    tokensPerSecond: decoded > 0 && timings.decodeMs > 0 ? (decoded / timings.decodeMs) * 1000 : null,
  };
}
