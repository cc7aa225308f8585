/**
 * The tensors of a checkpoint behind one interface, whether they lie in one safetensors file or in many with an index.
 * Nothing is held in memory: callers read ranges of rows, so that packing a model never needs it twice.
 */
import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import { blockOf, isQuantized, type QuantizedDType } from '../ir/formats.js';
import { assert, defined } from '../util/assert.js';
import { checkedProduct, show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import { bf16ToF32Array, f16ToF32Array } from '../util/float.js';
import { dequantize } from './dequantize.js';
import { readJsonFile, statFile } from './json-file.js';
import type { OpenFile } from './open-file.js';
import type { SafetensorsEntry, SafetensorsFile } from './safetensors.js';
import { openSafetensors } from './safetensors.js';

/** What safetensors checkpoints are read in. */
export type WeightDtype = 'f32' | 'f16' | 'bf16';
/** GGUF files have quantized tensors as well. */
export type StoredDtype = WeightDtype | QuantizedDType;

export interface TensorInfo {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
}

export interface Weights {
  /** The file or directory the tensors come from; errors point at it. */
  readonly path: string;
  has(name: string): boolean;
  /** Throws CheckpointError where the tensor is missing or of a dtype that is not read. */
  describe(name: string): TensorInfo;
  /** Little-endian bytes, or whole blocks, of rows [firstRow, firstRow + rows) of the leading dimension, in a buffer of their own. */
  read(name: string, firstRow: number, rows: number): Uint8Array;
  /** The same rows, widened to float32. */
  readF32(name: string, firstRow: number, rows: number): Float32Array;
  names(): Iterable<string>;
  /** Hex digest over file names, sizes, modification times, headers and samples: a cheap key for caches of derived files. */
  readonly fingerprint: string;
  close(): void;
}

const dtypes: ReadonlyMap<string, WeightDtype> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
]);

/** Bytes of one element. */
export function dtypeBytes(dtype: WeightDtype): 2 | 4 {
  return dtype === 'f32' ? 4 : 2;
}

const indexName = 'model.safetensors.index.json';
const maxIndexBytes = 64 * 1024 * 1024;

/** Opens `model.safetensors`, or the shards of its index, in a directory. Throws CheckpointError. */
export function openWeights(directory: string): Weights {
  const single = join(directory, 'model.safetensors');
  const indexPath = join(directory, indexName);
  const index = readJsonFile(indexPath, maxIndexBytes);
  if (index !== undefined) return openShards(directory, indexPath, index);
  if (statFile(single) === undefined) {
    throw new CheckpointError(directory, `has neither model.safetensors nor ${indexName}`, {
      hint: 'kloop reads safetensors checkpoints; convert .bin or .pth files first',
    });
  }
  const file = openSafetensors(single);
  return makeWeights(single, [file], new Map([...file.tensors.keys()].map((name) => [name, file])));
}

function openShards(directory: string, indexPath: string, index: unknown): Weights {
  const map: unknown =
    typeof index === 'object' && index !== null ? (index as Record<string, unknown>)['weight_map'] : undefined;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new CheckpointError(indexPath, 'has no weight_map object');
  }
  const files = new Map<string, SafetensorsFile>();
  const owners = new Map<string, SafetensorsFile>();
  try {
    for (const [name, shard] of Object.entries(map)) {
      // A plain file name only: anything with a separator could leave the directory.
      if (typeof shard !== 'string' || !/^[\w.-]+\.safetensors$/.test(shard) || shard.startsWith('.')) {
        throw new CheckpointError(indexPath, `shard ${show(shard)} of tensor ${show(name)} is not a plain file name`);
      }
      const file = files.get(shard) ?? openShard(directory, shard, indexPath);
      files.set(shard, file);
      if (!file.tensors.has(name))
        throw new CheckpointError(file.path, `lacks tensor ${show(name)}, which the index places there`);
      owners.set(name, file);
    }
  } catch (error) {
    for (const file of files.values()) file.close();
    throw error;
  }
  return makeWeights(directory, [...files.values()], owners);
}

function openShard(directory: string, shard: string, indexPath: string): SafetensorsFile {
  const path = join(directory, shard);
  if (statFile(path) === undefined) {
    throw new CheckpointError(indexPath, `shard ${shard} is missing`, { hint: 'download the model again' });
  }
  return openSafetensors(path);
}

function makeWeights(
  path: string,
  files: readonly SafetensorsFile[],
  owners: ReadonlyMap<string, SafetensorsFile>,
): Weights {
  const locate = (name: string): { file: SafetensorsFile; entry: SafetensorsEntry; dtype: WeightDtype } => {
    const file = owners.get(name);
    if (file === undefined) throw new CheckpointError(path, `tensor ${show(name)} is missing`);
    const entry = defined(file.tensors.get(name), `tensor ${name}`);
    const dtype = dtypes.get(entry.dtype);
    if (dtype === undefined) {
      throw new CheckpointError(file.path, `tensor ${show(name)} is ${entry.dtype}, only F32, F16 and BF16 are read`);
    }
    return { file, entry, dtype };
  };
  const read = (name: string, firstRow: number, rows: number): Uint8Array => {
    const { file, entry, dtype } = locate(name);
    const total = entry.shape[0] ?? 1;
    assert(
      Number.isInteger(firstRow) && Number.isInteger(rows) && firstRow >= 0 && rows >= 0 && firstRow + rows <= total,
      `rows ${firstRow}+${rows} of ${total}`,
    );
    const rowBytes = defined(checkedProduct([...entry.shape.slice(1), dtypeBytes(dtype)]), 'row size');
    const target = new Uint8Array(rows * rowBytes);
    file.readInto(target, entry.offset + firstRow * rowBytes);
    return target;
  };
  return {
    path,
    has: (name) => owners.has(name),
    describe: (name) => {
      const { entry, dtype } = locate(name);
      return { name, dtype, shape: entry.shape };
    },
    read,
    readF32: (name, firstRow, rows) => widen(read(name, firstRow, rows), locate(name).dtype),
    names: () => owners.keys(),
    fingerprint: fingerprintOf(files),
    close: () => {
      for (const file of files) file.close();
    },
  };
}

/** Of all files of a checkpoint together, about, and the bytes of each. */
const samples = 64;
const sampleBytes = 4096;

/** @param files their headers hashed, in any order */
export function fingerprintOf(files: readonly (OpenFile & { readonly headerHash: string })[]): string {
  const each = Math.ceil(samples / files.length);
  const lines = files.map((file) =>
    [basename(file.path), file.size, file.modifiedMs, file.headerHash, sampleHash(file, each)].join(' '),
  );
  return createHash('sha256').update(lines.sort().join('\n')).digest('hex');
}

/**
 * Of pieces all over a file: two fine-tunes of a model differ in nothing else where all files have the same time, as in
 * images that are built reproducibly.
 */
function sampleHash(file: OpenFile, count: number): string {
  const hash = createHash('sha256');
  const piece = new Uint8Array(Math.min(sampleBytes, file.size));
  for (let i = 0; i < count; i++) {
    file.readInto(piece, Math.floor(((i + 0.5) / count) * (file.size - piece.length)));
    hash.update(piece);
  }
  return hash.digest('hex');
}

/** Raw little-endian bytes (aligned to their element), or whole blocks, as float32. */
export function widen(bytes: Uint8Array, dtype: StoredDtype): Float32Array {
  if (isQuantized(dtype)) {
    const block = blockOf(dtype);
    const values = new Float32Array((bytes.length / block.bytes) * block.elements);
    dequantize(dtype, bytes, values);
    return values;
  }
  const { buffer, byteOffset, byteLength } = bytes;
  switch (dtype) {
    case 'f32':
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case 'f16':
      return f16ToF32Array(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case 'bf16':
      return bf16ToF32Array(new Uint16Array(buffer, byteOffset, byteLength / 2));
    default:
      return dtype satisfies never;
  }
}
