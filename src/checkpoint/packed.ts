/**
 * The packed file: a program's weights in the order of their use, written once and mapped by backends afterwards. Matrices
 * become tiles of 16 rows, stored along the columns, of which an even number; bf16 keeps two columns together, as its dot
 * products want them.
 * The name of the file is a hash of the checkpoint and of the layout, so that a file that exists is the right one.
 */
import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { paddedColumns, tileRows } from '../ir/packed-layout.js';
import type { Placement, Program, Tensor } from '../ir/program.js';
import { bytesOf } from '../ir/tensor.js';
import { assert } from '../util/assert.js';
import { AbortedError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { encodeWeights } from './encode.js';
import { firstNonFinite, nonFiniteError } from './finite.js';
import { packTiles } from './tiles.js';
import type { Weights } from './weights.js';

export { packTiles };

/** Changes when the meaning of a layout does. */
const formatVersion = 3;
/** About this many bytes of a checkpoint are in memory while packing. */
const chunkBytes = 8 << 20;

export interface PackOptions {
  readonly cacheDir: string;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface PackedWeight {
  readonly source: string;
  readonly firstRow: number;
  readonly tensor: Tensor;
  readonly placement: Placement;
}

/** Where the packed weights of a program are, or will be. */
export interface PackedFile {
  readonly path: string;
  readonly bytes: number;
  readonly weights: readonly PackedWeight[];
}

/** @param fingerprint of the checkpoint */
export function packedFile(program: Program, fingerprint: string, cacheDir: string): PackedFile {
  const weights = packedEntries(program);
  const bytes = weights.reduce((end, { placement }) => Math.max(end, placement.offset + placement.bytes), 0);
  const hash = createHash('sha256')
    .update(JSON.stringify([formatVersion, fingerprint, weights]))
    .digest('hex');
  return { path: join(cacheDir, `weights-${hash.slice(0, 32)}.bin`), bytes, weights };
}

/**
 * Path of the packed weights of this program, made if they are not in the cache.
 * @throws CheckpointError for weights that are not finite, StorageError where the cache cannot be written
 */
export async function packedWeightsFile(program: Program, weights: Weights, options: PackOptions): Promise<string> {
  const { path, bytes: total, weights: entries } = packedFile(program, weights.fingerprint, options.cacheDir);
  if (existsSync(path) && statSync(path).size === total) return path;
  await writeFileAtomic(path, async (file) => {
    let done = 0;
    for (const entry of entries) {
      if (options.signal?.aborted) throw new AbortedError('packing was stopped');
      await writeWeight(file, entry, weights);
      done += entry.placement.bytes;
      options.onProgress?.(done, total);
    }
    await file.truncate(total);
    await file.sync();
  });
  return path;
}

function packedEntries(program: Program): PackedWeight[] {
  return program.values.flatMap(({ tensor, origin }) => {
    if (origin.kind !== 'checkpoint' || origin.placement === undefined) return [];
    assert(origin.shard === undefined, 'packed files hold the weights of one socket');
    return [{ source: origin.tensor, firstRow: origin.rows?.first ?? 0, tensor, placement: origin.placement }];
  });
}

async function writeWeight(file: FileHandle, entry: PackedWeight, weights: Weights): Promise<void> {
  const { source, firstRow, tensor, placement } = entry;
  const [rows, columns] = tensor.shape as readonly number[];
  if (placement.form === 'rows') {
    await writeAt(file, readRows(weights, source, firstRow, rows!, tensor), placement.offset);
    return;
  }
  const rowBytes = bytesOf(tensor.dtype, paddedColumns(columns!));
  const rowsAtOnce = Math.max(tileRows, Math.floor(chunkBytes / rowBytes / tileRows) * tileRows);
  for (let row = 0; row < rows!; row += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows! - row);
    const tiles = packTiles(readRows(weights, source, firstRow + row, count, tensor), count, columns!, tensor.dtype);
    await writeAt(file, tiles, placement.offset + row * rowBytes);
  }
}

/** All of it: a write to a disk that is nearly full can end early without an error. */
export async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

/** Rows of a checkpoint tensor in the program's format: as stored, or converted to what was asked for. */
function readRows(weights: Weights, source: string, first: number, count: number, { dtype }: Tensor): Uint8Array {
  const { dtype: stored, shape } = weights.describe(source);
  const bytes = weights.read(source, first, count);
  const bad = firstNonFinite(bytes, stored);
  if (bad >= 0) {
    const perRow = shape.slice(1).reduce((product, dim) => product * dim, 1);
    throw nonFiniteError(weights, source, first * perRow + bad);
  }
  return stored === dtype ? bytes : encodeWeights(weights.readF32(source, first, count), dtype);
}
