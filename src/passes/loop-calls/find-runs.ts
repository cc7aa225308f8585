/**
 * Finding what to loop: runs of calls that repeat with some period. Classes of kernels are compared first, which is cheap;
 * then iterations are compared whole and checked for legality one by one, so that a run is as long as is legal. The run
 * that covers most calls is taken (of equals the one with the shortest period, then the first), and the search goes on to
 * its left and right.
 */
import { bindRun, type Role } from './bindings.js';
import type { Iteration, Iterations } from './iterations.js';

export interface Run {
  readonly start: number;
  readonly period: number;
  readonly iterations: readonly Iteration[];
  readonly roles: readonly Role[];
}

/** Where calls repeat going by their classes; `count` iterations at most. */
interface Candidate {
  readonly start: number;
  readonly period: number;
  readonly count: number;
}

export function endOf(run: Run): number {
  return run.start + run.period * run.iterations.length;
}

/** The runs to loop among calls `from .. to - 1`, in order. */
export function findRuns(context: Iterations, from: number, to: number): Run[] {
  const best = bestRun(context, from, to);
  if (best === undefined) return [];
  best.roles.forEach((role, at) => {
    if (role.kind !== 'stacked') return;
    context.addStack(best.iterations.flatMap(({ args }) => (args[at]?.kind === 'value' ? [args[at].value] : [])));
  });
  return [...findRuns(context, from, best.start), best, ...findRuns(context, endOf(best), to)];
}

function bestRun(context: Iterations, from: number, to: number): Run | undefined {
  const coverage = ({ period, count }: Candidate): number => period * count;
  const candidates = findCandidates(context, from, to).sort(
    (a, b) => coverage(b) - coverage(a) || a.period - b.period || a.start - b.start,
  );
  let best: Run | undefined;
  let covered = 0;
  for (const candidate of candidates) {
    // Nothing that follows can cover more, nor as much with a shorter period.
    if (coverage(candidate) < covered) break;
    if (coverage(candidate) === covered && best !== undefined && candidate.period >= best.period) break;
    const run = growRun(context, candidate);
    if (run === undefined) continue;
    const size = run.period * run.iterations.length;
    const better = size > covered || (size === covered && best !== undefined && run.period < best.period);
    if (!better) continue;
    best = run;
    covered = size;
  }
  return best;
}

function findCandidates(context: Iterations, from: number, to: number): Candidate[] {
  const { classes } = context;
  const candidates: Candidate[] = [];
  for (let period = 1; 2 * period <= to - from; period++) {
    let matching = 0;
    for (let start = to - period - 1; start >= from; start--) {
      matching = classes[start] === classes[start + period] ? matching + 1 : 0;
      const count = Math.floor(matching / period) + 1;
      if (count >= 2 && context.isBorder(start) && context.isBorder(start + period)) {
        candidates.push({ start, period, count });
      }
    }
  }
  return candidates;
}

/** As many iterations of the candidate as are legal, or undefined where not even two are. */
function growRun(context: Iterations, { start, period, count }: Candidate): Run | undefined {
  const iterations: Iteration[] = [];
  for (let index = 0; index < count; index++) {
    const next = context.at(start + index * period, start + (index + 1) * period);
    if (next.key !== (iterations[0] ?? next).key) break;
    iterations.push(next);
  }
  if (iterations.length < 2) return undefined;
  // Mostly all of it is legal; where it is not, every shorter run is tried from two iterations up.
  const whole = bindRun(context, iterations);
  if (whole.kind === 'bound') return { start, period, iterations, roles: whole.roles };
  let run: Run | undefined;
  for (let length = 2; length < iterations.length; length++) {
    const part = iterations.slice(0, length);
    const result = bindRun(context, part);
    if (result.kind === 'refused') break;
    run = { start, period, iterations: part, roles: result.roles };
  }
  return run;
}
