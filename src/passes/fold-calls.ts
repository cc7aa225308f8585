/** Folding for print: runs of calls that repeat by kernel name, shown once. Says nothing about what could be looped. */
import type { Call } from '../ir/program.js';

/** Calls `first .. first + period - 1`, `times` times. */
export interface Fold {
  readonly first: number;
  readonly period: number;
  readonly times: number;
}

/** Folds that cover all calls in order: at each place the one that covers most, of equals the shortest. */
export function foldCalls(calls: readonly Call[]): Fold[] {
  const folds: Fold[] = [];
  let first = 0;
  while (first < calls.length) {
    const fold = longestFold(calls, first);
    folds.push(fold);
    first += fold.period * fold.times;
  }
  return folds;
}

function longestFold(calls: readonly Call[], first: number): Fold {
  let best: Fold = { first, period: 1, times: 1 };
  for (let period = 1; first + 2 * period <= calls.length; period++) {
    let end = first + period;
    while (end < calls.length && calls[end]!.kernel === calls[end - period]!.kernel) end++;
    const times = Math.floor((end - first) / period);
    if (times >= 2 && period * times > best.period * best.times) best = { first, period, times };
  }
  return best;
}
