/**
 * The list of passes, in order, and where each schedule leaves it. What a pass requires is that those before it have run.
 *
 *   buildProgram -> shard -> [operator] fuseLayers -> [layer] loopCalls -> [looped] loopTokens -> [response]
 *   then, for every schedule: planStages -> pipelineLoops -> packWeights -> checkSchedule
 */
import { schedules, type DType, type Limits, type Program, type Schedule } from '../ir/program.js';
import { buildProgram } from '../models/build.js';
import type { ModelConfig } from '../models/model-config.js';
import { checkSchedule, type CheckedProgram } from './check-schedule.js';
import { fuseLayers } from './fuse-layers.js';
import { loopCalls } from './loop-calls/index.js';
import { packWeights } from './pack-weights.js';
import type { Memory, Pass, PassContext, Report } from './pass.js';
import { pipelineLoops } from './pipeline-loops.js';
import { planStages } from './plan-stages.js';
import { loopTokens } from './response.js';
import { shard } from './shard.js';

/** Tokens of one call of the `response` schedule: short enough to stream text, long enough that a call costs nothing. */
const defaultResponseTokens = 32;

export interface ModelOptions {
  readonly sockets?: number;
  readonly limits: Limits;
  /** Format of the matrices; that of the checkpoint where absent. */
  readonly weightFormat?: DType;
  /** Format of each matrix, by its name in the checkpoint, where they differ. */
  readonly formatOf?: (tensor: string) => DType;
  readonly stateFormat?: DType;
  /** Of the machine that will run it. */
  readonly capabilities: {
    readonly memories: readonly Memory[];
    readonly tileBytes: number;
    readonly defaultWorkers: number;
    readonly contextBlock?: number;
    readonly projectionsByHead?: boolean;
  };
  /** Workers that will share a kernel; the machine's default where absent. */
  readonly workers?: number;
  readonly responseTokens?: number;
}

export interface CompileOptions extends ModelOptions {
  readonly schedule: Schedule;
}

export interface CompiledModel {
  /** `step` for any rows; `response`, under that schedule, for many tokens in a call. */
  readonly plan: { readonly step: CheckedProgram; readonly response?: CheckedProgram };
  readonly reports: readonly Report[];
}

/** From a model's configuration to certified programs. */
export function compileModel(config: ModelConfig, { schedule, ...options }: CompileOptions): CompiledModel {
  return modelCompiler(config, options)(schedule);
}

/** Compiles a model under several schedules: what they have in common is done once. */
export function modelCompiler(config: ModelConfig, options: ModelOptions): (schedule: Schedule) => CompiledModel {
  const context = contextOf(options);
  const shape = once((schedule): Passed => {
    const before = schedules[schedules.indexOf(schedule) - 1];
    const from = before === undefined ? { program: buildProgram(config, options), reports: [] } : shape(before);
    return runPasses(from, shapingPasses(schedule, options), context);
  });
  const finish = once((schedule) => {
    const { program, reports } = runPasses(shape(schedule), finishingPasses, context);
    return { program: checkSchedule(program), reports };
  });
  return (schedule) => {
    const { program, reports } = finish(schedule);
    if (schedule !== 'response') return { plan: { step: program }, reports };
    return { plan: { step: finish('looped').program, response: program }, reports };
  };
}

/** The passes that put the kernel borders where `schedule` has them, from where the schedule before has them. */
export function shapingPasses(
  schedule: Schedule,
  { sockets = 1, responseTokens = defaultResponseTokens }: Pick<ModelOptions, 'sockets' | 'responseTokens'> = {},
): Pass[] {
  switch (schedule) {
    case 'operator':
      return sockets > 1 ? [shard(sockets)] : [];
    case 'layer':
      return [fuseLayers];
    case 'looped':
      return [loopCalls];
    case 'response':
      return [loopTokens(responseTokens)];
    default:
      return schedule satisfies never;
  }
}

/** The passes that make a program ready to run, whatever its schedule. */
export const finishingPasses: readonly Pass[] = [planStages, pipelineLoops, packWeights];

function contextOf({ capabilities, workers }: ModelOptions): PassContext {
  return {
    memories: capabilities.memories,
    tileBytes: capabilities.tileBytes,
    workers: workers ?? capabilities.defaultWorkers,
    ...(capabilities.contextBlock === undefined ? {} : { contextBlock: capabilities.contextBlock }),
    projectionsByHead: capabilities.projectionsByHead ?? true,
  };
}

/** A program and what the passes said that made it. */
interface Passed {
  readonly program: Program;
  readonly reports: readonly Report[];
}

function runPasses(from: Passed, passes: readonly Pass[], context: PassContext): Passed {
  return passes.reduce(({ program, reports }, pass) => {
    const result = pass(program, context);
    return { program: result.program, reports: [...reports, result.report] };
  }, from);
}

/** `make`, run once for each schedule. */
function once<T>(make: (schedule: Schedule) => T): (schedule: Schedule) => T {
  const made = new Map<Schedule, T>();
  return (schedule) => {
    const known = made.get(schedule) ?? make(schedule);
    made.set(schedule, known);
    return known;
  };
}
