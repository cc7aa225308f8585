/** Saying why not further: what ended each run, and what kept every layer or token that is in no run out of one. */
import { compareKernels } from '../kernel-form.js';
import type { Refusal } from '../pass.js';
import { bindRun } from './bindings.js';
import { endOf, type Run } from './find-runs.js';
import type { Iteration, Iterations } from './iterations.js';

/** In the order of the calls, at most one for each layer or token. */
export function explainRefusals(context: Iterations, runs: readonly Run[]): Refusal[] {
  const refusals: Refusal[] = [];
  const total = context.program.calls.length;
  let position = 0;
  for (const run of [...runs, undefined]) {
    const previous = position === 0 ? undefined : runs.find((candidate) => endOf(candidate) === position);
    const further = previous === undefined ? undefined : whyNotFurther(context, previous);
    if (further !== undefined) refusals.push(further);
    const gapEnd = run?.start ?? total;
    for (let call = position; call < gapEnd; call = unitEnd(context, call)) {
      const alone = further?.call === call ? undefined : whyAlone(context, call, run);
      if (alone !== undefined) refusals.push(alone);
    }
    if (run !== undefined) position = endOf(run);
  }
  return refusals;
}

/** The call after the layer or token that `call` is of. */
function unitEnd({ program, units }: Iterations, call: number): number {
  const unit = units.unitOf(call);
  let end = call + 1;
  while (unit !== undefined && end < program.calls.length && units.unitOf(end) === unit) end++;
  return end;
}

function whyNotFurther(context: Iterations, run: Run): Refusal | undefined {
  const call = endOf(run);
  if (isOutsider(context, call)) return undefined;
  const { iterations, period, start } = run;
  let end = call;
  while (end < call + period && !isOutsider(context, end)) end++;
  const first = context.at(start, start + end - call);
  const next = context.at(call, end);
  const difference = compare(context, next, first);
  if (difference !== undefined) return difference;
  if (end < call + period) {
    const detail = `${context.label(call)} is left over: an iteration of the run before is ${period} calls long`;
    return refusalAt(context, call, { reason: 'run-too-short', detail });
  }
  const result = bindRun(context, [...iterations, next]);
  return result.kind === 'bound' ? undefined : refusalAt(context, call, result.violation);
}

/** Why the layer or token that begins at `call` is not looped with what comes next, which may be the run `after`. */
function whyAlone(context: Iterations, call: number, after: Run | undefined): Refusal | undefined {
  if (isOutsider(context, call)) return undefined;
  const end = unitEnd(context, call);
  const label = context.label(call);
  if (isOutsider(context, end)) {
    const detail = `${label} has nothing after it to be looped with`;
    return refusalAt(context, call, { reason: 'run-too-short', detail });
  }
  const here = context.at(call, end);
  const joins = after?.start === end && after.period === end - call;
  const next = joins ? after.iterations : [context.at(end, unitEnd(context, end))];
  const difference = compare(context, here, next[0]!);
  if (difference !== undefined) return difference;
  const result = bindRun(context, [here, ...next]);
  if (result.kind === 'refused') return refusalAt(context, call, result.violation);
  const detail = `${label} does the same as ${context.label(end)}, which is looped with others, several at a time`;
  return refusalAt(context, call, { reason: 'run-too-short', detail });
}

/** No loop is expected to take this call in. */
function isOutsider(context: Iterations, call: number): boolean {
  return call >= context.program.calls.length || context.units.unitOf(call) === undefined;
}

function compare(context: Iterations, here: Iteration, there: Iteration): Refusal | undefined {
  const labels = { here: context.label(here.first), there: context.label(there.first) };
  const difference = compareKernels(here.kernel, there.kernel, labels);
  return difference === undefined ? undefined : refusalAt(context, here.first, difference);
}

function refusalAt({ program }: Iterations, call: number, why: Omit<Refusal, 'call' | 'layer'>): Refusal {
  const layer = program.calls[call]?.origin.layer;
  return { ...why, call, ...(layer === undefined ? {} : { layer }) };
}
