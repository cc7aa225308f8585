/** From a name on the command line or in a program to a model that is ready to make text. */
import { basename } from 'node:path';
import type { Backend, Executable, ExecutionPlan, MemoryNeed } from '../backends/backend.js';
import { defaultCacheDir } from '../backends/cache-dir.js';
import { chooseBackend } from '../backends/registry.js';
import { formatsByTensor } from '../checkpoint/checkpoint.js';
import { openCheckpoint, type Checkpoint } from '../checkpoint/directory.js';
import type { GenerationDefaults } from '../checkpoint/generation.js';
import { resolveModel } from '../checkpoint/resolve.js';
import type { Limits, Schedule } from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import type { ModelConfig } from '../models/model-config.js';
import { packedLength } from '../passes/pack-weights.js';
import { compileModel } from '../passes/pipeline.js';
import { createTokenizer, loadTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { defined } from '../util/assert.js';
import { AbortedError, UsageError } from '../util/errors.js';
import { ChatFormat } from './chat-format.js';
import { shown } from './check-options.js';
import { fitContext } from './fit-context.js';
import { chooseFormats, compressed, type Formats } from './formats.js';
import { checkLoadOptions, type LoadOptions } from './load-options.js';
import { Model } from './model.js';
import type { SamplingOptions } from './sampling.js';

export type { LoadOptions };

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
  requireSpec(spec);
  checkLoadOptions(options);
  const { onNotice = () => undefined, signal } = options;
  const directory = resolveModel(spec);
  const backend = await chooseBackend(options.backend ?? 'auto', onNotice);
  const checkpoint = openCheckpoint(directory, nameOf(spec, directory));
  try {
    const { config, tokenizerConfig, chatTemplate, toolTemplate } = checkpoint;
    const chosen = chooseTarget(checkpoint, backend, options, onNotice);
    const { schedule, limits, formats } = chosen;
    const mixed = formatsByTensor(checkpoint.weights, formats.formatOf);
    const tokenizer = tokenizerOf(checkpoint);
    stopIf(signal);
    const target = options.compress === false ? chosen : await compressTarget(checkpoint, backend, chosen, options);
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
  requireSpec(spec);
  checkLoadOptions(options);
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

/** For callers whose types were not checked. */
function requireSpec(spec: unknown): void {
  if (typeof spec === 'string') return;
  throw new UsageError(`the name of the model is ${shown(spec)}, must be a text`, {
    hint: 'give `demo`, a model directory, a .gguf file, or OWNER/NAME',
  });
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
    throw new UsageError(`${name} is ${shown(value)}, must be a whole number from 1 to ${max}`);
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

/** With weights in fewer bytes, where they fit; a plan that was made for them as they are is of no use then. */
async function compressTarget(
  checkpoint: Checkpoint,
  backend: Backend,
  target: Target,
  { cacheDir = defaultCacheDir(), onProgress, signal }: LoadOptions,
): Promise<Target> {
  const formats = await compressed(target.formats, checkpoint, backend, {
    cacheDir,
    onProgress: (done, total) => onProgress?.({ phase: 'read', done, total, unit: 'bytes' }),
    ...(signal === undefined ? {} : { signal }),
  });
  const { schedule, limits } = target;
  return formats === target.formats ? target : { schedule, limits, formats };
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
    throw new UsageError(`threads is ${shown(threads)}, must be a whole number from 1 to ${maxThreads}`);
  }
  if (threads > maxWorkers)
    onNotice?.(`the ${name} backend has no use for ${threads} threads here, only for ${maxWorkers}`);
}

function stopIf(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortedError('loading the model was stopped');
}
