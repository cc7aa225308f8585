/**
 * The interface between compiled programs and the machines that run them. A backend prepares programs once; the
 * executable then runs steps. What a backend can do is data (`Capabilities`): passes read it and never ask for a name.
 */
import type { DType, Schedule } from '../ir/program.js';
import type { Weights } from '../checkpoint/weights.js';
import type { CheckedProgram } from '../passes/check-schedule.js';
import type { Memory } from '../passes/pass.js';

export interface Backend {
  readonly name: string;
  readonly capabilities: Capabilities;
  /** @throws ToolchainError, CheckpointError or StorageError, each with one clear line. */
  prepare(plan: ExecutionPlan, weights: Weights, options: PrepareOptions): Promise<Executable>;
  /** What a plan takes of the machine's memory, all of it at once; absent where memory is taken only as it is used. */
  readonly memoryFor?: (plan: ExecutionPlan) => MemoryNeed;
  /** Measures the memory that kernels read; where absent, that is the memory of this machine's processors. */
  openBandwidthMeter?(cacheDir: string): Promise<BandwidthMeter>;
}

/** Bytes. */
export interface MemoryNeed {
  readonly needed: number;
  readonly free: number;
}

export interface BandwidthMeter {
  /** Threads, or multiprocessors, that read at a time. */
  readonly threads: number;
  readonly bytes: number;
  /**
   * Bytes per second of one pass over the buffer, or over `area`, where the meter can read that: memory is not equally fast
   * everywhere. Blocks for the time that it takes.
   */
  measure(area?: MemoryArea): number;
  /** Gives the buffer back. */
  close(): void;
}

/** Of this process. */
export interface MemoryArea {
  readonly address: bigint;
  readonly bytes: number;
}

export interface Capabilities {
  /** Formats a `linear` weight may have. */
  readonly weightFormats: readonly DType[];
  /** Whether bf16 is read faster as bf16z, one of the formats. */
  readonly readsCompressed?: boolean;
  /** Formats the KV cache may have. */
  readonly stateFormats: readonly DType[];
  readonly schedules: readonly Schedule[];
  readonly maxSockets: number;
  /** From the nearest to the farthest; the last one holds everything. Bytes per worker, or in all for shared memories. */
  readonly memories: readonly Memory[];
  /** Unit in which stacked reads stream ahead. */
  readonly tileBytes: number;
  /** Positions of a unit of attention, where the backend can divide it by context as well as by head. */
  readonly contextBlock?: number;
  /** False where a projection is never divided by heads together with the attention that reads it. */
  readonly projectionsByHead?: boolean;
  readonly maxWorkers: number;
  /** Workers where the user asks for no number. */
  readonly defaultWorkers: number;
}

/**
 * What the runtime wants to run. `step` makes one token step of any rows (prompt chunks, batches); `response`, under the
 * schedule of that name, makes many tokens in one call. Both share weights and state by value name. A backend refuses a
 * program without a valid certificate (assertChecked).
 */
export interface ExecutionPlan {
  readonly step: CheckedProgram;
  readonly response?: CheckedProgram;
}

/**
 * Where a cpu engine has its weights: in memory of its own, in large pages that every worker fills with what it reads, or
 * mapped from the packed file, which processes share and nothing is copied for. `auto` is the former where there is room.
 */
export const weightsMemories = ['auto', 'own', 'mapped'] as const;
export type WeightsMemory = (typeof weightsMemories)[number];

export interface PrepareOptions {
  readonly threads?: number;
  /** Default: auto. Other backends have one place only. */
  readonly weightsMemory?: WeightsMemory;
  /** Directory for packed weights and compiled code; the standard cache where absent. */
  readonly cacheDir?: string;
  /** Instruction set to force, for tests and comparisons (cpu). */
  readonly instructionSet?: string;
  /** Keep every worker on a processor of its own (cpu, Linux). Default: the system moves them. */
  readonly pin?: boolean;
  /** Whether the kernel calls of a step are launched as one graph (default), or one by one, to compare (cuda). */
  readonly launches?: 'graph' | 'single';
  /** Have kernels count the time of their stages (cpu); costs some of it. */
  readonly profile?: boolean;
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

export interface Progress {
  readonly phase: 'read' | 'pack' | 'compile' | 'load';
  readonly done: number;
  readonly total: number;
  readonly unit: 'bytes' | 'steps';
}

/** A stage of a kernel, waiting for it included, as the first worker saw it. */
export interface StageTime {
  readonly kernel: string;
  readonly stage: string;
  /** How often it ended. */
  readonly count: number;
  readonly nanoseconds: number;
}

export interface Executable {
  /** Workers that share a kernel; 1 where that has no meaning. */
  readonly threads: number;
  /** `run` tells tokens while a kernel that makes several still runs; where not, who waits for its result has as much. */
  readonly showsTokens: boolean;
  /**
   * Runs one request to its end; requests of one executable are queued. Rejects with AbortedError after `close`.
   * @param onToken is told every token of the result once, those of a sample in order, before `run` resolves; where a kernel
   * makes several, as soon as the machine shows them
   */
  run(step: Step, onToken?: TokenListener): Promise<StepResult>;
  /** Ends the requests made so far after the tokens they are at; what was made until then is their result. */
  abort(): void;
  readonly counters: Counters;
  /** Where it has its weights, until it is closed; absent where that is not the memory of this process. */
  readonly weightsArea?: MemoryArea;
  /** Where the time went so far; only where it was prepared with `profile`. */
  stageTimes?(): readonly StageTime[];
  /** Forgets all state (KV cache, history). */
  reset(): Promise<void>;
  /** Ends all requests as `abort` does, and frees everything. May be called again. */
  close(): Promise<void>;
}

export type TokenListener = (sample: number, token: number) => void;

/** All arrays are indexed by row or by sample; every `index[s]` is the row of sample s. */
export interface Step {
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly slots: Int32Array;
  readonly index: Int32Array;
  readonly sampling: readonly SampleSettings[];
  /** Tokens that end a sample, at most 16. */
  readonly stopTokens: readonly number[];
  /**
   * How many tokens to make per sample at most. More than 1 needs every row to be a sample (index[s] = s): the token made
   * becomes the next step's row.
   */
  readonly steps: number;
  /** Copies the logits of the last step out (samples x vocab, float32). */
  readonly wantLogits?: boolean;
}

export interface SampleSettings {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 0 is off. */
  readonly topK: number;
  /** 1 is off. */
  readonly topP: number;
  /** 0 is off. */
  readonly minP: number;
  /** 1 is off. */
  readonly repetitionPenalty: number;
  /** Taken from the logit of a token that was made already; 0, the default, is off. */
  readonly presencePenalty?: number;
  /** The same, once for every time it was made. */
  readonly frequencyPenalty?: number;
  /** Position of the first token that was made, for these two. */
  readonly madeFrom?: number;
  /** Added to the logits of different tokens, at most 300. */
  readonly bias?: readonly (readonly [token: number, bias: number])[];
  /**
   * The tokens that may be chosen: a bit for each of the vocabulary, the lowest of a word first; at least one is set. It
   * holds for every token of the step.
   */
  readonly allowed?: Int32Array;
  /** 64-bit seed as two halves; the position is the counter, so that a token depends on nothing else. */
  readonly seed: readonly [low: number, high: number];
  /** Tokens this sample may still make. */
  readonly remaining: number;
}

export interface StepResult {
  /** Per sample, the tokens made, in order; a stop token is the last one. */
  readonly tokens: readonly (readonly number[])[];
  /** Per sample: it met a stop token or its limit. */
  readonly done: readonly boolean[];
  /** Logits of the last step, samples x vocab, where wanted. */
  readonly logits?: Float32Array;
}

/** Counted where it happens, since the executable was made. */
export interface Counters {
  readonly kernelCalls: number;
  readonly barriers: number;
  readonly tokens: number;
  /** Weight and state bytes that the kernels asked for. */
  readonly bytesRead: number;
  /** Worker time spent waiting for other workers, summed. */
  readonly waitNs: number;
}
