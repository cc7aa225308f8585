/**
 * One of ours to be measured: the model under one schedule with one number of threads. It talks to the executable as the
 * runtime does, without tokenizer and text, so that what is timed is the making of tokens.
 */
import type {
  Backend,
  Executable,
  ExecutionPlan,
  MemoryArea,
  SampleSettings,
  StageTime,
  StepResult,
  WeightsMemory,
} from '../backends/backend.js';
import type { Checkpoint } from '../checkpoint/directory.js';
import type { Limits, Schedule } from '../ir/program.js';
import { modelCompiler } from '../passes/pipeline.js';
import type { Formats } from '../runtime/formats.js';
import { readCounters } from '../runtime/usage.js';
import { assert, defined } from '../util/assert.js';
import { fillerTokens, type Candidate, type Counts, type Identity, type Sample, type Workload } from './workload.js';

export interface VariantOptions {
  readonly backend: Backend;
  readonly schedule: Schedule;
  readonly threads: number;
  /** Default: graph, where the backend has that. */
  readonly launches?: 'graph' | 'single';
  readonly formats: Formats;
  /** It is measured for having its bf16 weights as they are. */
  readonly uncompressed?: boolean;
  /** One slot and one sample. */
  readonly limits: Limits;
  /** Where it has been compiled already. */
  readonly plan?: ExecutionPlan;
  readonly cacheDir: string;
  readonly weightsMemory?: WeightsMemory;
  /** Default: the best one (cpu). */
  readonly instructionSet?: string;
  /** Count the time of stages. */
  readonly profile?: boolean;
  /** Bytes of the weights that have been packed. */
  readonly onPack?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** What a variant makes of a prompt; equal for all variants. */
export interface Transcript {
  readonly tokens: readonly number[];
  /** After prompt and tokens. */
  readonly logits: Float32Array;
}

/** Compiles a model for variants that differ in their schedule. */
export function compilerOf(
  { config }: Checkpoint,
  { backend, formats, limits, threads }: Pick<VariantOptions, 'backend' | 'formats' | 'limits' | 'threads'>,
): (schedule: Schedule) => ExecutionPlan {
  const { quant, formatOf, kv } = formats;
  const compile = modelCompiler(config, {
    ...{ limits, weightFormat: quant, stateFormat: kv, capabilities: backend.capabilities, workers: threads },
    ...(formatOf === undefined ? {} : { formatOf }),
  });
  return (schedule) => compile(schedule).plan;
}

export class Variant implements Candidate {
  readonly identity: Identity & { engine: 'kloop' };
  readonly #executable: Executable;
  readonly #limits: Limits;
  readonly #vocab: number;

  private constructor(executable: Executable, options: VariantOptions, vocab: number) {
    const { schedule, threads, launches, uncompressed } = options;
    this.identity = {
      ...{ engine: 'kloop', schedule, threads },
      ...(launches === 'single' ? { mode: 'single launches' } : {}),
      ...(uncompressed === true ? { mode: 'uncompressed' } : {}),
    };
    this.#executable = executable;
    this.#limits = options.limits;
    this.#vocab = vocab;
  }

  /** Compiles and loads. Throws what the backend throws. */
  static async prepare(checkpoint: Checkpoint, options: VariantOptions): Promise<Variant> {
    const { backend, schedule, threads, launches, cacheDir, weightsMemory, instructionSet, profile, onPack, signal } =
      options;
    const plan = options.plan ?? compilerOf(checkpoint, options)(schedule);
    const executable = await backend.prepare(plan, checkpoint.weights, {
      threads,
      cacheDir,
      ...(launches === undefined ? {} : { launches }),
      ...(weightsMemory === undefined ? {} : { weightsMemory }),
      ...(instructionSet === undefined ? {} : { instructionSet }),
      ...(profile === undefined ? {} : { profile }),
      onProgress: ({ phase, done, total }) => {
        if (phase === 'pack') onPack?.(done, total);
      },
      ...(signal === undefined ? {} : { signal }),
    });
    return new Variant(executable, options, checkpoint.config.vocab);
  }

  get weightsArea(): MemoryArea | undefined {
    return this.#executable.weightsArea;
  }

  async time(workload: Workload): Promise<Sample> {
    return this.#timed(workload.tokens, await this.#ready(workload));
  }

  /** Times of the stages, in the order in which kernels have them; of those that ran. */
  async profile(workload: Workload): Promise<StageTime[]> {
    const run = await this.#ready(workload);
    const before = this.#executable.stageTimes?.() ?? [];
    await run();
    const after = this.#executable.stageTimes?.() ?? [];
    return after.flatMap((stage, i) => {
      const count = stage.count - (before[i]?.count ?? 0);
      const nanoseconds = stage.nanoseconds - (before[i]?.nanoseconds ?? 0);
      return count === 0 ? [] : [{ ...stage, count, nanoseconds }];
    });
  }

  /** The greedy continuation by `tokens` tokens, past any end-of-text, and the logits behind it. */
  async transcribe(prompt: readonly number[], tokens: number): Promise<Transcript> {
    const made = [firstToken(await this.#prefill(prompt))];
    if (tokens > 1) {
      const { tokens: more } = await this.#decode(made[0]!, prompt.length, tokens - 1);
      made.push(...more[0]!);
    }
    // The last token is computed by itself: its logits depend on everything that the steps before left in the cache.
    const last = prompt.length + made.length - 1;
    const { logits } = await this.#step([made.at(-1)!], last, { sampled: true, steps: 1, wantLogits: true });
    return { tokens: made, logits: defined(logits, 'logits') };
  }

  /** Logits after a prompt. */
  async logits(prompt: readonly number[]): Promise<Float32Array> {
    return defined((await this.#prefill(prompt, true)).logits, 'logits');
  }

  /** Ends a run under way early; its result is of no use. */
  abort(): void {
    this.#executable.abort();
  }

  close(): Promise<void> {
    return this.#executable.close();
  }

  /** What a workload times, with all done that comes before. */
  async #ready(workload: Workload): Promise<() => Promise<StepResult>> {
    switch (workload.kind) {
      case 'prefill': {
        const prompt = fillerTokens(workload.tokens, this.#vocab);
        return () => this.#prefill(prompt);
      }
      case 'decode': {
        const first = firstToken(await this.#prefill(fillerTokens(workload.depth, this.#vocab)));
        return () => this.#decode(first, workload.depth, workload.tokens);
      }
      default:
        return workload satisfies never;
    }
  }

  async #timed(tokens: number, run: () => Promise<StepResult>): Promise<Sample> {
    const before = readCounters(this.#executable.counters);
    const startMs = performance.now();
    await run();
    const milliseconds = performance.now() - startMs;
    const after = readCounters(this.#executable.counters);
    const counts: Counts = {
      kernelCalls: after.kernelCalls - before.kernelCalls,
      barriers: after.barriers - before.barriers,
      bytesRead: after.bytesRead - before.bytesRead,
      waitNs: after.waitNs - before.waitNs,
    };
    return { milliseconds, tokens, counts };
  }

  /** A prompt from position 0, in chunks of as many rows as there may be. */
  async #prefill(prompt: readonly number[], wantLogits = false): Promise<StepResult> {
    const { rows } = this.#limits;
    let begin = 0;
    for (; begin + rows < prompt.length; begin += rows) {
      await this.#step(prompt.slice(begin, begin + rows), begin, { sampled: false, steps: 1 });
    }
    return this.#step(prompt.slice(begin), begin, { sampled: true, steps: 1, wantLogits });
  }

  async #decode(first: number, position: number, tokens: number): Promise<StepResult> {
    return this.#step([first], position, { sampled: true, steps: tokens });
  }

  #step(
    tokens: readonly number[],
    position: number,
    options: { readonly sampled: boolean; readonly steps: number; readonly wantLogits?: boolean },
  ): Promise<StepResult> {
    const { sampled, steps, wantLogits = false } = options;
    return this.#executable.run({
      tokens: Int32Array.from(tokens),
      positions: Int32Array.from(tokens, (_, i) => position + i),
      slots: new Int32Array(tokens.length),
      index: sampled ? Int32Array.of(tokens.length - 1) : new Int32Array(0),
      sampling: sampled ? [greedy(steps)] : [],
      stopTokens: [],
      steps,
      wantLogits,
    });
  }
}

function greedy(remaining: number): SampleSettings {
  return { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: [0, 0], remaining };
}

function firstToken({ tokens }: StepResult): number {
  const token = tokens[0]?.[0];
  assert(token !== undefined, 'a prompt made no token');
  return token;
}
