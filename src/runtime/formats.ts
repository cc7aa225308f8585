/**
 * Which format every matrix and the KV cache get: what the checkpoint has, or what was asked for, as far as the backend runs
 * it; and bf16 without loss in fewer bytes where that is read faster.
 */
import type { Backend } from '../backends/backend.js';
import type { Checkpoint } from '../checkpoint/checkpoint.js';
import { compressibleTensors, type ScanOptions } from '../checkpoint/compressible.js';
import { blockOf, plainFormat } from '../ir/formats.js';
import type { DType } from '../ir/program.js';
import { defaultStateFormat } from '../models/build.js';
import { expectedTensors } from '../models/tensors.js';
import type { ModelConfig } from '../models/model-config.js';
import { UnsupportedModelError, UsageError } from '../util/errors.js';

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
    const quant = chooseFormat(config, backend, asked.quant && plainFormat(asked.quant), onNotice);
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

/**
 * The same with matrices of bf16 in bf16z, where the backend reads that faster and the weights fit it: the same numbers. All
 * weights are read for that the first time.
 * @throws CheckpointError for weights that are not finite, StorageError where the cache cannot be written
 */
export async function compressed(
  formats: Formats,
  { config, weights }: Checkpoint,
  { capabilities }: Backend,
  options: ScanOptions,
): Promise<Formats> {
  if (capabilities.readsCompressed !== true) return formats;
  const { quant, formatOf = () => quant } = formats;
  const candidates = expectedTensors(config).flatMap(({ name, shape: [rows, columns] }) =>
    rows === undefined || columns === undefined || formatOf(name) !== 'bf16'
      ? []
      : [{ name, shape: [rows, columns] as const }],
  );
  if (candidates.length === 0) return formats;
  const fitting = await compressibleTensors(weights, candidates, options);
  if (fitting.size === 0) return formats;
  return { ...formats, formatOf: (tensor) => (fitting.has(tensor) ? 'bf16z' : formatOf(tensor)) };
}

/** The format of the matrices; one that the backend lacks is widened where that is exact, and never narrowed. */
function chooseFormat(
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
