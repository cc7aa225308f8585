/** What a person wants to know after a text: how much, how fast, and by what. */
import type { GenerationResult } from '../runtime/generation.js';
import { metricsOf, type Metrics } from '../runtime/metrics.js';
import type { Model } from '../runtime/model.js';
import { significant } from '../util/units.js';
import { paint } from './output.js';

/** `1234 tokens/s, 53 kernel calls per token`; what was not measured is left out. */
export function rateOf({ tokensPerSecond, kernelCallsPerToken }: Metrics): string {
  const parts: string[] = [];
  if (tokensPerSecond !== null) parts.push(`${significant(tokensPerSecond)} tokens/s`);
  if (kernelCallsPerToken !== null) parts.push(`${significant(kernelCallsPerToken)} kernel calls per token`);
  return parts.length === 0 ? 'too short to measure' : parts.join(', ');
}

/** `160 tokens; response: 1234 tokens/s, 0.05 kernel calls per token; backend cpu, f32 weights, 2 threads`. */
export function summaryLine(model: Model, result: GenerationResult): string {
  const { tokens } = result;
  const count = `${tokens.length} ${tokens.length === 1 ? 'token' : 'tokens'}`;
  const threads = `${model.threads} ${model.threads === 1 ? 'thread' : 'threads'}`;
  const rate = `${model.schedule}: ${rateOf(metricsOf(result))}`;
  const { stderr } = process;
  return `${paint(stderr, 'bold', count)}; ${paint(stderr, 'green', rate)}; backend ${model.backend}, ${model.quant} weights, ${threads}`;
}
