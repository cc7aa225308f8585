/** Options that several verbs share, with the checks that commander does not do. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { weightsMemories } from '../backends/backend.js';
import { backendNames } from '../backends/registry.js';
import { samplingRanges, type Range } from '../checkpoint/sampling-ranges.js';
import { schedules, type DType } from '../ir/program.js';
import type { LoadOptions } from '../runtime/load-model.js';
import type { SamplingOptions } from '../runtime/sampling.js';

export const quantNames = ['f32', 'bf16', 'f16', 'q8_0', 'q4_0'] as const satisfies readonly DType[];

const kvNames = ['f32', 'bf16', 'q8_0'] as const satisfies readonly DType[];

/** A whole number from `min` to `max`. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    const upper = max === Number.MAX_SAFE_INTEGER ? `at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`It must be a whole number, ${upper}.`);
  };
}

/** A number from `min` to `max`. */
export function decimal(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? NaN : Number(text);
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
  };
}

function within({ min, max, integer: whole }: Range): (text: string) => number {
  return whole === true ? integer(min, max) : decimal(min, max);
}

/** Where something is written: an empty one would be the current directory, where a variable of a script was not set. */
export function place(text: string): string {
  if (text !== '') return text;
  throw new InvalidArgumentError('It must not be empty.');
}

/** Distinct items of a comma-separated list, in order. */
export function listOf<T>(text: string, parse: (item: string) => T): T[] {
  return [...new Set(text.split(',').map((item) => parse(item.trim())))];
}

/** For options that may be given several times. */
export function collect(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text];
}

/** Parsed by commander: absent options are not there. */
export interface SamplingFlags {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number;
}

export function addSamplingOptions(command: Command, temperatureDefault: string): Command {
  const { temperature, topK, topP, minP, repetitionPenalty } = samplingRanges;
  return command
    .option(
      '--temperature <t>',
      `0 is greedy, higher is more varied (default: ${temperatureDefault})`,
      within(temperature),
    )
    .option('--top-k <k>', 'sample from the k most likely tokens', within(topK))
    .option('--top-p <p>', 'sample from the most likely tokens that have this probability together', within(topP))
    .option('--min-p <p>', 'sample from tokens at least this likely relative to the best', within(minP))
    .option('--repetition-penalty <r>', 'above 1 makes tokens of the context less likely', within(repetitionPenalty))
    .option('--seed <n>', 'the same seed gives the same text (default: random)', integer(0));
}

export function samplingOf(flags: SamplingFlags): SamplingOptions {
  const { temperature, topK, topP, minP, repetitionPenalty, seed } = flags;
  return defined({ temperature, topK, topP, minP, repetitionPenalty, seed });
}

export type LoadFlags = Omit<LoadOptions, 'slots' | 'rows' | 'onProgress' | 'onNotice' | 'signal'>;

export function scheduleOption(): Option {
  return new Option('--schedule <schedule>', 'where the kernel boundaries are (default: response)').choices(schedules);
}

export function weightsMemoryOption(): Option {
  const about = 'own is faster, mapped is shared with other processes (default: auto, own where there is room)';
  return new Option('--weights-memory <where>', about).choices(weightsMemories);
}

export function kvOption(): Option {
  return new Option('--kv <format>', 'format of the KV cache (default: f32 for f32 weights, else bf16)').choices(
    kvNames,
  );
}

export function addLoadOptions(command: Command): Command {
  return command
    .addOption(scheduleOption())
    .addOption(new Option('--backend <backend>', 'what runs the kernels (default: auto)').choices(backendNames))
    .addOption(new Option('--quant <format>', "format of the weights (default: the checkpoint's)").choices(quantNames))
    .option('--no-compress', 'keep bf16 weights as they are, not in the fewer bytes that hold the same numbers (cpu)')
    .addOption(kvOption())
    .option('--threads <n>', 'worker threads (default: one per core)', integer(1, 256))
    .option('--pin', 'keep every thread on a processor of its own')
    .addOption(weightsMemoryOption())
    .option(
      '--context <n>',
      "positions of a sequence (default: the model's, at most 4096; with cuda what fits)",
      integer(1),
    )
    .option('--cache-dir <dir>', 'directory for packed weights and compiled code', place);
}

export function loadOptionsOf(flags: LoadFlags): LoadOptions {
  const { schedule, backend, quant, compress, kv, threads, pin, weightsMemory, context, cacheDir } = flags;
  return defined({ schedule, backend, quant, compress, kv, threads, pin, weightsMemory, context, cacheDir });
}

/** The object without its undefined fields. */
export function defined<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]: Exclude<T[K], undefined> };
}
