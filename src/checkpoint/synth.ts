/**
 * Writes a checkpoint with random weights at the shapes of a config, complete with tokenizer: for benchmarks and tests
 * that need the size of a model and not its knowledge. Weights are scaled so that activations stay near one.
 */
import { open, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ModelConfig } from '../models/model-config.js';
import { toHfConfig } from '../models/parse-config.js';
import { expectedTensors } from '../models/tensors.js';
import { AbortedError, StorageError, UsageError } from '../util/errors.js';
import { createDirectoryAtomic } from '../util/files.js';
import type { PlainTensor } from './safetensors-layout.js';
import { safetensorsHeader, tensorBytes } from './safetensors-layout.js';
import type { Noise, Spread } from './synth-noise.js';
import { createNoise } from './synth-noise.js';
import { synthTokenizer } from './synth-tokenizer.js';
import { dtypeBytes } from './weights.js';
import { formatBytes } from '../util/units.js';

export interface SynthOptions {
  readonly seed?: number;
  /** Number of layers instead of the config's; kinds of layers repeat. */
  readonly layers?: number;
  /** Largest weights file, in bytes; 4 GB if not given. A larger tensor gets a file of its own. */
  readonly shardBytes?: number;
  readonly signal?: AbortSignal;
  onProgress?(doneBytes: number, totalBytes: number): void;
}

const defaultShardBytes = 4e9;

/**
 * Creates `outDir` (absent or empty) as a Hugging Face directory in the precision of `config`. The directory appears
 * complete or not at all. Throws StorageError, UsageError or AbortedError.
 */
export async function writeSynthetic(config: ModelConfig, outDir: string, options: SynthOptions = {}): Promise<void> {
  const model = withLayers(config, options.layers);
  const tensors = expectedTensors(model).map((tensor): PlainTensor => ({ ...tensor, dtype: model.dtype }));
  const total = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  const { tokenizer, tokenizerConfig, bos, eos } = synthTokenizer(model.vocab, model.context);
  const ids = { bos_token_id: bos, eos_token_id: eos };
  await createDirectoryAtomic(outDir, async (directory) => {
    await requireSpace(directory, outDir, total);
    const writeJson = (name: string, json: unknown) =>
      writeFile(join(directory, name), `${JSON.stringify(json, null, 1)}\n`);
    await writeJson('config.json', { ...toHfConfig(model), ...ids });
    await writeJson('generation_config.json', { ...ids, do_sample: false });
    await writeJson('tokenizer_config.json', tokenizerConfig);
    await writeJson('tokenizer.json', tokenizer);
    const noise = createNoise(String(options.seed ?? 0), model.dtype);
    const shards = splitShards(tensors, options.shardBytes ?? defaultShardBytes);
    const shardName = (i: number) =>
      shards.length === 1 ? 'model.safetensors' : `model-${pad5(i + 1)}-of-${pad5(shards.length)}.safetensors`;
    let done = 0;
    for (const [i, shard] of shards.entries()) {
      await writeShard(join(directory, shardName(i)), shard, noise, model, (bytes) => {
        done += bytes;
        if (options.signal?.aborted === true) throw new AbortedError('writing the synthetic checkpoint was stopped');
        options.onProgress?.(done, total);
      });
    }
    if (shards.length > 1) {
      const map = shards.flatMap((shard, i) => shard.map(({ name }) => [name, shardName(i)] as const));
      const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(map) };
      await writeJson('model.safetensors.index.json', index);
    }
  });
}

function withLayers(config: ModelConfig, layers: number | undefined): ModelConfig {
  if (layers === undefined) return config;
  if (!Number.isInteger(layers) || layers < 1 || layers > 1000) {
    throw new UsageError(`layers is ${layers}, must be a whole number from 1 to 1000`);
  }
  const windows = Array.from({ length: layers }, (_, layer) => config.windows[layer % config.layers]!);
  return { ...config, layers, windows };
}

/** Fails before the first byte instead of after the last free one, where the file system tells. */
async function requireSpace(directory: string, outDir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const free = bavail * bsize;
  if (free >= bytes) return;
  throw new StorageError(
    outDir,
    `needs ${formatBytes(bytes)}, ${formatBytes(free)} are free in ${dirname(directory)}`,
    {
      hint: 'free some space, choose another place, or ask for fewer layers',
    },
  );
}

function pad5(n: number): string {
  return String(n).padStart(5, '0');
}

/** Consecutive tensors, at most `shardBytes` together unless a single one is larger. */
function splitShards(tensors: readonly PlainTensor[], shardBytes: number): PlainTensor[][] {
  const shards: PlainTensor[][] = [];
  let room = 0;
  for (const tensor of tensors) {
    const bytes = tensorBytes(tensor);
    if (shards.length === 0 || bytes > room) {
      shards.push([]);
      room = shardBytes;
    }
    shards.at(-1)!.push(tensor);
    room -= bytes;
  }
  return shards;
}

async function writeShard(
  path: string,
  tensors: readonly PlainTensor[],
  noise: Noise,
  config: ModelConfig,
  wrote: (bytes: number) => void,
): Promise<void> {
  const file = await open(path, 'wx');
  try {
    await file.writeFile(safetensorsHeader(tensors));
    for (const tensor of tensors) {
      const elements = tensorBytes(tensor) / dtypeBytes(tensor.dtype);
      for (const piece of noise.pieces(tensor.name, elements, spreadOf(tensor, config))) {
        // Unlike `write`, this goes on until all of the piece is out.
        await file.writeFile(piece);
        wrote(piece.length);
      }
    }
  } finally {
    await file.close();
  }
}

/** A matrix keeps the size of what it multiplies; norms multiply by about one; biases are small. */
export function spreadOf({ name, shape }: Pick<PlainTensor, 'name' | 'shape'>, config: ModelConfig): Spread {
  const inputs = shape[1];
  if (inputs !== undefined) return { mean: 0, std: 1 / Math.sqrt(inputs) };
  return name.endsWith('.bias') ? { mean: 0, std: 0.02 } : { mean: 1 - config.normOffset, std: 0.05 };
}
