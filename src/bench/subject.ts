/**
 * The model that is measured: a checkpoint, or for a preset one with random weights at its shapes, written into the cache
 * once. For the peer, the same weights as a GGUF file, also kept.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { openCheckpoint, type Checkpoint } from '../checkpoint/directory.js';
import { ggufFormats, type GgufFormat } from '../checkpoint/gguf/format.js';
import { writeGguf } from '../checkpoint/gguf/writer.js';
import { resolveModel } from '../checkpoint/resolve.js';
import { writeSynthetic } from '../checkpoint/synth.js';
import type { DType } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { findPreset, type Preset } from '../models/presets.js';
import { parameterCount } from '../models/tensors.js';
import { StorageError, UsageError } from '../util/errors.js';
import { asStorageError, makeDirectory } from '../util/files.js';
import { formatBytes } from '../util/units.js';

/** Bytes done, of how many. */
export type OnBytes = (label: string, done: number, total: number) => void;

export interface SubjectOptions {
  readonly quant?: DType;
  readonly cacheDir: string;
  readonly onBytes: OnBytes;
  readonly onNotice: (line: string) => void;
  readonly signal?: AbortSignal;
}

export interface Subject {
  readonly checkpoint: Checkpoint;
  /** The weights are random. */
  readonly synthetic: boolean;
}

/** Changes when presets are written otherwise than before. */
const synthVersion = 1;

/** The caller closes `checkpoint.weights`. Throws CheckpointError, UnsupportedModelError, StorageError or AbortedError. */
export async function openSubject(spec: string, options: SubjectOptions): Promise<Subject> {
  const preset = findPreset(spec);
  if (preset === undefined) return { checkpoint: openCheckpoint(resolveModel(spec)), synthetic: false };
  const directory = await syntheticDirectory(preset, options);
  return { checkpoint: openCheckpoint(directory, preset.name), synthetic: true };
}

/** Written in the precision that is asked for where a checkpoint can have it; what is narrower is made when packing. */
async function syntheticDirectory(preset: Preset, options: SubjectOptions): Promise<string> {
  const { quant, cacheDir, onBytes, onNotice, signal } = options;
  const dtype = quant === 'f32' || quant === 'f16' || quant === 'bf16' ? quant : preset.config.dtype;
  const config: ModelConfig = { ...preset.config, dtype };
  const key = digest([synthVersion, config]).slice(0, 8);
  const directory = join(cacheDir, 'synthetic', `${preset.name}-${dtype}-${key}`);
  if (existsSync(join(directory, 'config.json'))) return directory;
  onNotice(`writing ${preset.name} with random ${dtype} weights to ${directory}, once`);
  try {
    await writeSynthetic(config, directory, {
      ...(signal === undefined ? {} : { signal }),
      onProgress: (done, total) => onBytes(`writing ${preset.name}`, done, total),
    });
  } catch (error) {
    // Another process may have been faster.
    if (!existsSync(join(directory, 'config.json'))) throw error;
  }
  return directory;
}

/**
 * Path of a GGUF file with the weights of this checkpoint in this format, made if it is not in the cache. A checkpoint that
 * is one already stays as it is unless another format was asked for.
 */
export async function ggufOf(checkpoint: Checkpoint, quant: DType, options: SubjectOptions): Promise<string> {
  if (checkpoint.formatOf !== undefined && options.quant === undefined) return checkpoint.path;
  if (!isGgufFormat(quant)) throw new UsageError(`weights in ${quant} cannot be given to llama.cpp`);
  const { config, weights } = checkpoint;
  const key = digest([weights.fingerprint, config, quant]).slice(0, 32);
  const file = join(options.cacheDir, `peer-${key}.gguf`);
  if (existsSync(file)) return file;
  const { blockBytes, blockElements } = ggufFormats[quant];
  await requireSpace(file, (parameterCount(config) / blockElements) * blockBytes);
  options.onNotice(`writing the same weights as GGUF for llama.cpp to ${file}, once`);
  await writeGguf(checkpoint, file, {
    quant,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onProgress: (done, total) => options.onBytes('writing GGUF', done, total),
  });
  return file;
}

function isGgufFormat(format: DType): format is GgufFormat {
  return Object.hasOwn(ggufFormats, format);
}

async function requireSpace(file: string, bytes: number): Promise<void> {
  const directory = dirname(file);
  try {
    await makeDirectory(directory);
  } catch (error) {
    throw asStorageError(directory, error);
  }
  const { bavail, bsize } = await statfs(directory);
  const free = bavail * bsize;
  if (free >= bytes) return;
  throw new StorageError(file, `needs about ${formatBytes(bytes)}, ${formatBytes(free)} are free`, {
    hint: 'free some space, or choose another place with --cache-dir',
  });
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex');
}
