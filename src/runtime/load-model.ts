/** From a name on the command line or in a program to a model that is ready to make text. */
import { basename } from 'node:path';
import type { Backend, Executable, ExecutionPlan, MemoryNeed, Progress, WeightsMemory } from '../backends/backend.js';
import { chooseBackend } from '../backends/registry.js';
import { formatsByTensor } from '../checkpoint/checkpoint.js';
import { openCheckpoint, type Checkpoint } from '../checkpoint/directory.js';
import type { GenerationDefaults } from '../checkpoint/generation.js';
import { resolveModel } from '../checkpoint/resolve.js';
import { blockOf } from '../ir/formats.js';
import type { DType, Limits, Schedule } from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import { defaultStateFormat } from '../models/build.js';
import type { ModelConfig } from '../models/model-config.js';
import { packedLength } from '../passes/pack-weights.js';
import { compileModel } from '../passes/pipeline.js';
import { createTokenizer, loadTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { defined } from '../util/assert.js';
import { AbortedError, UnsupportedModelError, UsageError } from '../util/errors.js';
import { ChatFormat } from './chat-format.js';
import { fitContext } from './fit-context.js';
import { Model } from './model.js';
import type { SamplingOptions } from './sampling.js';

export interface LoadOptions {
  /** Default `auto`: the CPU, or the reference backend where there is no C compiler. */
  readonly backend?: 'auto' | 'cpu' | 'cuda' | 'reference';
  /** Where the kernel boundaries are. Default `response`: as few as there can be. Changes no result. */
  readonly schedule?: Schedule;
  /** Format of the matrices. Default: that of the checkpoint; precision is never lowered unasked. */
  readonly quant?: DType;
  /** Format of the KV cache. Default: f32 for f32 weights, bf16 for others. */
  readonly kv?: DType;
  /** Worker threads; default: what the backend finds best. */
  readonly threads?: number;
  /** Keep every worker on a processor of its own; pays only where nobody else uses them. Default: no. */
  readonly pin?: boolean;
  /** Where the cpu backend has the weights; default: memory of its own where there is room. */
  readonly weightsMemory?: WeightsMemory;
  /** Positions of a session. Default: those of the model, at most 4096, or as many as the memory of a device holds. */
  readonly context?: number;
  /** Sessions that can be open at a time. Default 4. */
  readonly slots?: number;
  /** Prompt tokens computed at a time. Default 64. */
  readonly rows?: number;
  /** Directory for packed weights and compiled code; the standard cache where absent. */
  readonly cacheDir?: string;
  /** Hears of long work: reading, packing and compiling. */
  readonly onProgress?: (progress: Progress) => void;
  /** One line on what turned out other than one might expect (another backend, a widened format). */
  readonly onNotice?: (line: string) => void;
  readonly signal?: AbortSignal;
}

const defaultContext = 4096;
const defaultSlots = 4;
/** Rows of a prompt that are computed at a time. */
export const defaultRows = 64;
const maxThreads = 256;

/**
 * Loads `demo`, a directory, a GGUF file, or a pulled Hub model `OWNER/NAME`. The caller closes the model. Throws UsageError for
 * options that do not fit, CheckpointError or UnsupportedModelError for the model, ToolchainError or StorageError from
 * the backend, AbortedError after `signal`; each says in one line what to do.
 */
export async function loadModel(spec: string, options: LoadOptions = {}): Promise<Model> {
  const { onNotice = () => undefined, signal } = options;
  const directory = resolveModel(spec);
  const backend = await chooseBackend(options.backend ?? 'auto', onNotice);
  const checkpoint = openCheckpoint(directory, nameOf(spec, directory));
  try {
    const { config, tokenizerConfig, chatTemplate, toolTemplate } = checkpoint;
    const target = chooseTarget(checkpoint, backend, options, onNotice);
    const { schedule, limits, formats } = target;
    const mixed = formatsByTensor(checkpoint.weights, formats.formatOf);
    const tokenizer = tokenizerOf(checkpoint);
    stopIf(signal);
    const executable = await prepare(checkpoint, backend, target, options);
    return new Model({
      name: config.name,
      config,
      tokenizer,
      chat: new ChatFormat({
        ...(chatTemplate === undefined ? {} : { template: chatTemplate }),
        ...(toolTemplate === undefined ? {} : { toolTemplate }),
        ...(tokenizerConfig === undefined ? {} : { tokenizerConfig }),
      }),
      schedule,
      backend: backend.name,
      quant: formats.quant,
      ...(mixed === undefined ? {} : { formats: mixed }),
      kv: formats.kv,
      limits,
      stopTokens: checkpoint.generation.eos,
      defaultSampling: samplingOf(checkpoint.generation),
      executable,
      onClose: () => checkpoint.weights.close(),
    });
  } catch (error) {
    checkpoint.weights.close();
    // Whatever it was that the stop interrupted.
    stopIf(signal);
    throw error;
  }
}

/** What a model will be, told without loading it. */
export interface ModelOutline {
  readonly name: string;
  readonly limits: Limits;
  /** Bytes of its weights as they are run, and of everything that kernels write: KV caches, activations. */
  readonly weightBytes: number;
  readonly stateBytes: number;
}

/** Opens and compiles, and reads no weights. Throws what `loadModel` throws before it reads them. */
export async function outlineModel(spec: string, options: LoadOptions = {}): Promise<ModelOutline> {
  const { onNotice = () => undefined } = options;
  const directory = resolveModel(spec);
  const backend = await chooseBackend(options.backend ?? 'auto', onNotice);
  const checkpoint = openCheckpoint(directory, nameOf(spec, directory));
  try {
    const target = chooseTarget(checkpoint, backend, options, onNotice);
    const { step } = compileTarget(checkpoint, backend, target, options.threads);
    const weightBytes = packedLength(step);
    const stateBytes = step.values
      .filter(({ origin }) => origin.kind !== 'checkpoint')
      .reduce((sum, { tensor }) => sum + tensorBytes(tensor, step.limits), 0);
    return { name: checkpoint.config.name, limits: target.limits, weightBytes, stateBytes };
  } finally {
    checkpoint.weights.close();
  }
}

/** `SmolLM2-135M` of `HuggingFaceTB/SmolLM2-135M@main`, `model` of `path/to/model/`. */
function nameOf(spec: string, directory: string): string {
  const name = basename(spec.replace(/@[^/]*$/, ''));
  return /^\w/.test(name) ? name : basename(directory);
}

/** The sampling part of what a checkpoint suggests. */
function samplingOf(generation: GenerationDefaults): SamplingOptions {
  const ids: readonly string[] = ['eos', 'bos'] satisfies (keyof GenerationDefaults)[];
  return Object.fromEntries(Object.entries(generation).filter(([name]) => !ids.includes(name)));
}

function chooseLimits(config: ModelConfig, options: LoadOptions): Limits {
  const { context = Math.min(config.context, defaultContext), slots = defaultSlots, rows = defaultRows } = options;
  const check = (name: string, value: number, max: number): void => {
    if (Number.isInteger(value) && value >= 1 && value <= max) return;
    throw new UsageError(`${name} is ${value}, must be a whole number from 1 to ${max}`);
  };
  check('context', context, config.context);
  check('slots', slots, 256);
  check('rows', rows, 4096);
  // Every open session must fit into a step.
  return { rows: Math.max(rows, slots), samples: slots, slots, context };
}

function tokenizerOf({ tokenizerFile, tokenizerJson, tokenizerConfig }: Checkpoint): Tokenizer {
  if (tokenizerJson === undefined) return loadTokenizer(tokenizerFile, tokenizerConfig);
  return createTokenizer(tokenizerFile, tokenizerJson, tokenizerConfig);
}

/** The format that most matrices get, that of each one where they may differ, and that of the KV cache. */
export interface Formats {
  readonly quant: DType;
  readonly formatOf: ((tensor: string) => DType) | undefined;
  readonly kv: DType;
}

/**
 * Matrices of a GGUF file stay as they are unless a format is asked for: throws UnsupportedModelError where the backend
 * does not run one of them. Of other checkpoints, see chooseFormat.
 */
export function chooseFormats(
  { path, config, weights, format, formatOf }: Checkpoint,
  backend: Backend,
  asked: { readonly quant?: DType; readonly kv?: DType },
  onNotice: (line: string) => void,
): Formats {
  if (formatOf === undefined || asked.quant !== undefined) {
    const quant = chooseFormat(config, backend, asked.quant, onNotice);
    return { quant, formatOf: undefined, kv: chooseKvFormat(config, backend, asked.kv, quant) };
  }
  const { weightFormats } = backend.capabilities;
  for (const name of weights.names()) {
    const { dtype, shape } = weights.describe(name);
    if (shape.length < 2 || weightFormats.includes(dtype)) continue;
    throw new UnsupportedModelError(`${path}: the ${backend.name} backend does not run tensor ${name} of ${dtype}`, {
      hint: 'convert the weights with --quant, for example to q8_0',
    });
  }
  return { quant: format, formatOf, kv: chooseKvFormat(config, backend, asked.kv, format) };
}

/** The format of the matrices; one that the backend lacks is widened where that is exact, and never narrowed. */
export function chooseFormat(
  config: ModelConfig,
  backend: Backend,
  asked: DType | undefined,
  onNotice: (line: string) => void,
): DType {
  const { weightFormats } = backend.capabilities;
  const format = asked ?? config.dtype;
  if (weightFormats.includes(format)) return format;
  if (asked === undefined && weightFormats.includes('f32')) {
    onNotice(`the ${backend.name} backend does not run ${format} weights; they are widened to f32, which is exact`);
    return 'f32';
  }
  throw new UsageError(`the ${backend.name} backend does not run ${format} weights`, {
    hint: `choose one of ${weightFormats.join(', ')}`,
  });
}

/** Throws UsageError for a format that the backend does not keep a cache in, or that the model's heads do not fit. */
function chooseKvFormat(
  { name, headDim }: ModelConfig,
  backend: Backend,
  asked: DType | undefined,
  quant: DType,
): DType {
  if (asked === undefined) return defaultStateFormat(quant);
  const { stateFormats } = backend.capabilities;
  if (!stateFormats.includes(asked)) {
    throw new UsageError(`the ${backend.name} backend keeps no KV cache in ${asked}`, {
      hint: `choose one of ${stateFormats.join(', ')}`,
    });
  }
  const { elements } = blockOf(asked);
  if (headDim % elements === 0) return asked;
  throw new UsageError(
    `a KV cache in ${asked} has blocks of ${elements}, and the heads of ${name} are ${headDim} wide`,
    {
      hint: 'choose f32 or bf16',
    },
  );
}

interface Target {
  readonly schedule: Schedule;
  readonly limits: Limits;
  readonly formats: Formats;
  /** Where it had to be compiled to know what memory it takes. */
  readonly plan?: ExecutionPlan;
}

function chooseTarget(
  checkpoint: Checkpoint,
  backend: Backend,
  options: LoadOptions,
  onNotice: (line: string) => void,
): Target {
  const limits = chooseLimits(checkpoint.config, options);
  const schedule = options.schedule ?? 'response';
  if (!backend.capabilities.schedules.includes(schedule)) {
    throw new UsageError(`the ${backend.name} backend does not run the schedule ${schedule}`, {
      hint: `choose one of ${backend.capabilities.schedules.join(', ')}`,
    });
  }
  const target = { schedule, limits, formats: chooseFormats(checkpoint, backend, options, onNotice) };
  const { memoryFor } = backend;
  if (options.context !== undefined || memoryFor === undefined) return target;
  const plans = new Map<number, ExecutionPlan>();
  const needOf = (fitted: Limits): MemoryNeed => {
    const plan = compileTarget(checkpoint, backend, { ...target, limits: fitted }, options.threads);
    plans.set(fitted.context, plan);
    return memoryFor(plan);
  };
  const fitted = fitContext(limits, needOf, onNotice);
  return { ...target, limits: fitted, plan: defined(plans.get(fitted.context), 'plan of the context') };
}

function compileTarget(
  { config }: Checkpoint,
  { capabilities }: Backend,
  { schedule, limits, formats: { quant, formatOf, kv }, plan: known }: Target,
  workers: number | undefined,
): ExecutionPlan {
  if (known !== undefined) return known;
  const { plan } = compileModel(config, {
    schedule,
    limits,
    weightFormat: quant,
    stateFormat: kv,
    ...(formatOf === undefined ? {} : { formatOf }),
    capabilities,
    ...(workers === undefined ? {} : { workers }),
  });
  return plan;
}

async function prepare(
  checkpoint: Checkpoint,
  backend: Backend,
  target: Target,
  { threads, pin, weightsMemory, cacheDir, onProgress, onNotice, signal }: LoadOptions,
): Promise<Executable> {
  if (threads !== undefined) checkThreads(threads, backend, onNotice);
  const plan = compileTarget(checkpoint, backend, target, threads);
  const executable = await backend.prepare(plan, checkpoint.weights, {
    ...(threads === undefined ? {} : { threads }),
    ...(pin === undefined ? {} : { pin }),
    ...(weightsMemory === undefined ? {} : { weightsMemory }),
    ...(cacheDir === undefined ? {} : { cacheDir }),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(signal === undefined ? {} : { signal }),
  });
  if (signal?.aborted === true) await executable.close();
  stopIf(signal);
  return executable;
}

/** More threads than processors are correct, and slow: they wait for each other. */
function checkThreads(threads: number, { name, capabilities }: Backend, onNotice: LoadOptions['onNotice']): void {
  const { maxWorkers } = capabilities;
  if (!Number.isInteger(threads) || threads < 1 || threads > maxThreads) {
    throw new UsageError(`threads is ${threads}, must be a whole number from 1 to ${maxThreads}`);
  }
  if (threads > maxWorkers)
    onNotice?.(`the ${name} backend has no use for ${threads} threads here, only for ${maxWorkers}`);
}

function stopIf(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortedError('loading the model was stopped');
}
