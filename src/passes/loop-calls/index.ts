/**
 * loopCalls: kernel looping (Koeplinger et al., arXiv 2410.23668). Consecutive calls that repeat become one call of a
 * kernel whose body is an outer loop. The loop is derived from the dataflow between the calls (bindings.ts), with any
 * period; what cannot be looped stays as it is, and the report says why.
 *
 *   embed(tokens, x.0)                     embed(tokens, x.0)
 *   layer(w.0, rope, x.0, x.1)             decoder([w.0, w.1, w.2], rope, x.0, x.3):
 *   layer(w.1, rope, x.1, x.2)      -->      for layer in 0..2: x' = layer(w[layer], rope, x); x <- x'
 *   layer(w.2, rope, x.2, x.3)
 *   lm_head(x.3, logits)                   lm_head(x.3, logits)
 */
import type { Call, Kernel, Name, Program, Schedule } from '../../ir/program.js';
import { FreshNames } from '../fresh-names.js';
import type { Pass, PassResult } from '../pass.js';
import { dropUnused } from '../unused.js';
import { explainRefusals } from './refusals.js';
import { endOf, findRuns, type Run } from './find-runs.js';
import { Iterations, type Units } from './iterations.js';
import { loopRun } from './rewrite.js';

/** Looping over decoder layers. */
export const loopCalls: Pass = (program) => {
  const unitOf = (call: number): number | undefined => program.calls[call]?.origin.layer;
  return loopOver(program, {
    units: { over: 'layer', unitOf },
    kernel: 'decoder',
    schedule: 'looped',
    pass: 'loopCalls',
  });
};

export interface LoopOptions {
  readonly units: Units;
  /** Name of the looped kernel. */
  readonly kernel: Name;
  readonly schedule: Schedule;
  /** The value of the first iteration that ends the loop where all its elements are not 0. */
  readonly until?: Name;
  /** Name of the pass in the report. */
  readonly pass: string;
}

/** Looping of any calls: over layers, and one level up over tokens. */
export function loopOver(program: Program, options: LoopOptions): PassResult {
  const context = new Iterations(program, options.units);
  const runs = findRuns(context, 0, program.calls.length);
  const names = new FreshNames(program.kernels.map(({ name }) => name));
  const kernels: Kernel[] = [];
  const calls: Call[] = [];
  let position = 0;
  for (const run of runs) {
    const { kernel, call } = loopRun(context, run, names.fresh(options.kernel), options.until);
    calls.push(...program.calls.slice(position, run.start), call);
    kernels.push(kernel);
    position = endOf(run);
  }
  calls.push(...program.calls.slice(position));
  const looped = { ...program, schedule: options.schedule, kernels: [...program.kernels, ...kernels], calls };
  return {
    program: dropUnused(looped),
    report: {
      pass: options.pass,
      notes: [...runs.map((run) => describeRun(context, run)), `${program.calls.length} calls became ${calls.length}`],
      refusals: explainRefusals(context, runs),
    },
  };
}

function describeRun(context: Iterations, run: Run): string {
  const { iterations, period, start } = run;
  const [first, last] = [context.label(start), context.label(endOf(run) - 1)];
  const calls = period === 1 ? 'one call' : `${period} calls`;
  return `${first} to ${last}: ${iterations.length} iterations of ${calls}`;
}
