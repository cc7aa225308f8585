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
export const defaultResponseTokens = 32;

export interface CompileOptions {
  readonly schedule: Schedule;
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

export interface CompiledModel {
  /** `step` for any rows; `response`, under that schedule, for many tokens in a call. */
  readonly plan: { readonly step: CheckedProgram; readonly response?: CheckedProgram };
  readonly reports: readonly Report[];
}

/** From a model's configuration to certified programs. */
export function compileModel(config: ModelConfig, options: CompileOptions): CompiledModel {
  const { schedule, capabilities } = options;
  const context: PassContext = {
    memories: capabilities.memories,
    tileBytes: capabilities.tileBytes,
    workers: options.workers ?? capabilities.defaultWorkers,
    ...(capabilities.contextBlock === undefined ? {} : { contextBlock: capabilities.contextBlock }),
    projectionsByHead: capabilities.projectionsByHead ?? true,
  };
  const built = buildProgram(config, options);
  const stepSchedule: Schedule = schedule === 'response' ? 'looped' : schedule;
  const shaped = runPasses(built, shapingPasses(stepSchedule, options.sockets ?? 1), context);
  const step = runPasses(shaped.program, finishingPasses, context);
  if (schedule !== 'response') {
    return { plan: { step: checkSchedule(step.program) }, reports: [...shaped.reports, ...step.reports] };
  }
  const looped = loopTokens(options.responseTokens ?? defaultResponseTokens)(shaped.program, context);
  const response = runPasses(looped.program, finishingPasses, context);
  return {
    plan: { step: checkSchedule(step.program), response: checkSchedule(response.program) },
    reports: [...shaped.reports, looped.report, ...response.reports],
  };
}

/** The passes that put the kernel borders where `schedule` has them. */
export function shapingPasses(schedule: Schedule, sockets: number): Pass[] {
  const reach = schedules.indexOf(schedule);
  return [
    ...(sockets > 1 ? [shard(sockets)] : []),
    ...(reach >= schedules.indexOf('layer') ? [fuseLayers] : []),
    ...(reach >= schedules.indexOf('looped') ? [loopCalls] : []),
  ];
}

/** The passes that make a program ready to run, whatever its schedule. */
export const finishingPasses: readonly Pass[] = [planStages, pipelineLoops, packWeights];

function runPasses(
  program: Program,
  passes: readonly Pass[],
  context: PassContext,
): { program: Program; reports: Report[] } {
  const reports: Report[] = [];
  let current = program;
  for (const pass of passes) {
    const result = pass(current, context);
    current = result.program;
    reports.push(result.report);
  }
  return { program: current, reports };
}
