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
  if (kernelCallsPerToken !== null) {
    parts.push(`${significant(kernelCallsPerToken)} kernel ${kernelCallsPerToken === 1 ? 'call' : 'calls'} per token`);
  }
  return parts.length === 0 ? 'too short to measure' : parts.join(', ');
}

/** `1 token`, `2 tokens`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** `160 tokens; response: 1234 tokens/s, 0.05 kernel calls per token; backend cpu, f32 weights, 2 threads`. */
export function summaryLine(model: Model, result: GenerationResult): string {
  const count = counted(result.tokens.length, 'token');
  const threads = counted(model.threads, 'thread');
  const rate = `${model.schedule}: ${rateOf(metricsOf(result))}`;
  const { stderr } = process;
  return `${paint(stderr, 'bold', count)}; ${paint(stderr, 'green', rate)}; backend ${model.backend}, ${model.quant} weights, ${threads}`;
}
