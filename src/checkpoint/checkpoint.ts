/** A model on disk, whatever its files are: what it is, its weights, and its tokenizer. */
import type { DType } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import type { GenerationDefaults } from './generation.js';
import type { StoredDtype, Weights } from './weights.js';

export interface Checkpoint {
  /** Absolute path of the directory, or of the GGUF file. */
  readonly path: string;
  /** Its dtype is that of the weights as they are stored, whatever config.json claims. */
  readonly config: ModelConfig;
  readonly generation: GenerationDefaults;
  readonly weights: Weights;
  /** What most of the matrices are stored in. */
  readonly format: StoredDtype;
  /** What each matrix is stored in, where that may differ (GGUF). */
  readonly formatOf?: (tensor: string) => StoredDtype;
  /** Path of tokenizer.json, which exists and is at most 64 MiB; with `tokenizerJson`, what errors point at. */
  readonly tokenizerFile: string;
  /** What tokenizer.json would hold, where there is none (GGUF). */
  readonly tokenizerJson?: object;
  /** Parsed tokenizer_config.json. */
  readonly tokenizerConfig?: Readonly<Record<string, unknown>>;
  /** Jinja sources: of conversations, and of those with tools, where that is another. */
  readonly chatTemplate?: string;
  readonly toolTemplate?: string;
}

/** What each tensor is stored in, by its name; undefined where all matrices are in one format. */
export function formatsByTensor(
  weights: Weights,
  formatOf: ((tensor: string) => DType) | undefined,
): ReadonlyMap<string, DType> | undefined {
  return formatOf && new Map([...weights.names()].map((name) => [name, formatOf(name)] as const));
}
