/** Means and quantiles of a few numbers. */
import { defined } from '../../util/assert.js';

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** Of an even count, the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = defined(sorted[sorted.length >> 1], 'a value');
  const lower = defined(sorted[(sorted.length - 1) >> 1], 'a value');
  return (lower + upper) / 2;
}
