/**
 * Where two schedules of a model part: the operator schedule cut off after k calls, with what the last call wrote in the
 * place of the logits, goes through the passes of both schedules and is run. The smallest k that differs is at fault.
 */
import { greedy, stepOf } from '../../tests/support/steps.js';
import type { Weights } from '../checkpoint/weights.js';
import { schedules, type Argument, type Call, type Limits, type Name, type Program } from '../ir/program.js';
import type { Schedule } from '../ir/program.js';
import { buildProgram } from '../models/build.js';
import type { ModelConfig } from '../models/model-config.js';
import { checkSchedule } from '../passes/check-schedule.js';
import { fuseLayers } from '../passes/fuse-layers.js';
import { loopCalls } from '../passes/loop-calls/index.js';
import { packWeights } from '../passes/pack-weights.js';
import type { Pass, PassContext } from '../passes/pass.js';
import { pipelineLoops } from '../passes/pipeline-loops.js';
import { planStages } from '../passes/plan-stages.js';
import { dropUnused } from '../passes/unused.js';
import type { Backend, PrepareOptions } from './backend.js';

export interface DifferenceCase {
  readonly config: ModelConfig;
  readonly weights: Weights;
  readonly limits: Limits;
}

/** `ffn_norm of layer 1`: the first call after which the schedules differ; undefined where none does in a single step. */
export async function firstDifference(
  backend: Backend,
  { config, weights, limits }: DifferenceCase,
  [first, second]: readonly [Schedule, Schedule],
  prepare: PrepareOptions,
): Promise<string | undefined> {
  const program = buildProgram(config, { limits });
  const bytes = async (calls: number, schedule: Schedule): Promise<Buffer> => {
    const planned = finish(cutOff(program, calls), schedule, {
      ...backend.capabilities,
      workers: prepare.threads ?? 1,
    });
    const executable = await backend.prepare({ step: checkSchedule(planned) }, weights, prepare);
    // Ids that are within the width of everything that stands in for the logits.
    const rows = [2, 5, 3].map((token, position) => ({ token, position, sample: greedy }));
    const { logits } = await executable.run({
      ...stepOf(rows, { wantLogits: true }),
      index: new Int32Array(),
      sampling: [],
    });
    await executable.close();
    return Buffer.from(logits!.buffer, logits!.byteOffset, logits!.byteLength);
  };
  // Only calls that write an activation can be compared; those before the LM head have rows that stay rows.
  const cuts = program.calls.flatMap((call, index) =>
    activationOf(program, call) === undefined || call.kernel === 'lm_head' ? [] : [index + 1],
  );
  let [equal, different] = [-1, cuts.length];
  while (different - equal > 1) {
    const middle = (equal + different) >> 1;
    const [a, b] = [await bytes(cuts[middle]!, first), await bytes(cuts[middle]!, second)];
    if (a.equals(b)) equal = middle;
    else different = middle;
  }
  const call = program.calls[(cuts[different] ?? 0) - 1];
  if (call === undefined) return undefined;
  return call.origin.layer === undefined ? call.kernel : `${call.kernel} of layer ${call.origin.layer}`;
}

/** What a call writes that is a row of numbers per token. */
function activationOf(program: Program, call: Call): Name | undefined {
  const kernel = program.kernels.find(({ name }) => name === call.kernel);
  const written = (kernel?.params ?? []).flatMap(({ access, tensor }, at) => {
    const argument = call.args[at];
    const fits = access === 'write' && tensor.role === 'activation' && tensor.shape[0] === 'rows';
    return fits && argument?.kind === 'value' ? [argument.value] : [];
  });
  return written[0];
}

function cutOff(program: Program, count: number): Program {
  const calls = program.calls.slice(0, count);
  const last = activationOf(program, calls.at(-1)!)!;
  const rename = (name: Name): Name => (name === last ? 'logits' : name);
  const renameArgument = (argument: Argument): Argument =>
    argument.kind === 'value'
      ? { kind: 'value', value: rename(argument.value) }
      : { kind: 'stack', values: argument.values.map(rename) };
  return dropUnused({
    ...program,
    values: program.values
      .filter(({ name }) => name !== 'logits')
      .map((value) => ({ ...value, name: rename(value.name) })),
    calls: calls.map((call) => ({ ...call, args: call.args.map(renameArgument) })),
    outputs: ['logits'],
    recurrence: [],
  });
}

function finish(program: Program, schedule: Schedule, context: PassContext): Program {
  const reach = schedules.indexOf(schedule);
  const shaping: Pass[] = [fuseLayers, loopCalls].slice(0, reach);
  return [...shaping, planStages, pipelineLoops, packWeights].reduce(
    (current, pass: Pass) => pass(current, context).program,
    program,
  );
}
