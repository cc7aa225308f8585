/** The statistics that measurements are reported by: the median, and how far they went. */
import { assert } from './assert.js';

/** Middle value, or the mean of the two in the middle; of at least one value. */
export function median(values: readonly number[]): number {
  assert(values.length > 0, 'the median of nothing');
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** The smallest value that at least `percent` of all reach (nearest rank); of at least one value. */
export function percentile(values: readonly number[], percent: number): number {
  assert(values.length > 0 && percent > 0 && percent <= 100, 'a percentile of values');
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil((percent / 100) * sorted.length) - 1]!;
}

/** Median and extremes of repeated measurements. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Of at least one value. */
export function spreadOf(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * How `of` compares with `to`: the ratio of the medians, and the extremes of the ratios of the same round. Equally long,
 * at least one value, none of `to` zero.
 */
export function ratioOf(of: readonly number[], to: readonly number[]): Spread {
  assert(of.length === to.length, 'ratios of measurements of different rounds');
  const ratios = of.map((value, round) => value / to[round]!);
  return { median: median(of) / median(to), min: Math.min(...ratios), max: Math.max(...ratios) };
}

/**
 * What a curve through `points` (at least one, in order of size) has at `size`: in even steps of both logarithms between
 * two points, since sizes are of very different orders; before the first and behind the last, what those have.
 */
export function interpolate(points: readonly { readonly size: number; readonly rate: number }[], size: number): number {
  const above = points.findIndex((point) => point.size >= size);
  const high = points[above < 0 ? points.length - 1 : above];
  assert(high !== undefined, 'a curve of no points');
  const low = points[above - 1];
  if (above < 0 || low === undefined) return high.rate;
  const part = Math.log(size / low.size) / Math.log(high.size / low.size);
  return low.rate * (high.rate / low.rate) ** part;
}
