/** What a caller may ask of a model, checked as far as the model is not needed for it. */
import { weightsMemories, type Progress, type WeightsMemory } from '../backends/backend.js';
import { backendNames } from '../backends/registry.js';
import { schedules, type DType, type Schedule } from '../ir/program.js';
import { checkOptions, flag, isSignal, oneOf, type Rule } from './check-options.js';

export interface LoadOptions {
  /** Default `auto`: the CPU, or the reference backend where there is no C compiler. */
  readonly backend?: 'auto' | 'cpu' | 'cuda' | 'reference';
  /** Where the kernel boundaries are. Default `response`: as few as there can be. Changes no result. */
  readonly schedule?: Schedule;
  /** Format of the matrices. Default: that of the checkpoint; precision is never lowered unasked. */
  readonly quant?: DType;
  /** Keep bf16 matrices in fewer bytes where they fit, without loss (bf16z). Default: yes. */
  readonly compress?: boolean;
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

const text: Rule = { holds: (value) => typeof value === 'string', must: 'be a text' };
const listener: Rule = { holds: (value) => typeof value === 'function', must: 'be a function' };

/** Which formats and numbers there can be depends on the model and the backend. */
const rules: Readonly<Record<Exclude<keyof LoadOptions, 'threads' | 'context' | 'slots' | 'rows'>, Rule>> = {
  backend: oneOf(backendNames),
  schedule: oneOf(schedules),
  quant: text,
  compress: flag,
  kv: text,
  pin: flag,
  weightsMemory: oneOf(weightsMemories),
  cacheDir: text,
  onProgress: listener,
  onNotice: listener,
  signal: isSignal,
};

/** Callers may not have checked types. Throws UsageError for the first option that is of a wrong type, or none of its names. */
export function checkLoadOptions(options: LoadOptions): void {
  checkOptions(options, rules);
}
