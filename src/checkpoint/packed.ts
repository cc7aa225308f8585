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
import { tileBytesOf, tileRows } from '../ir/packed-layout.js';
import type { Placement, Program, Tensor } from '../ir/program.js';
import { assert } from '../util/assert.js';
import { AbortedError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { compressTiles } from './compress.js';
import { readRows } from './read-rows.js';
import { packTiles } from './tiles.js';
import type { Weights } from './weights.js';

export { packTiles };

/** Changes when the meaning of a layout does. */
const formatVersion = 4;
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
    await writeAt(file, readRows(weights, source, firstRow, rows!, tensor.dtype), placement.offset);
    return;
  }
  const { dtype } = tensor;
  const tiles = Math.ceil(rows! / tileRows);
  const bytes = tileBytesOf(dtype, columns!);
  const tilesAtOnce = Math.max(1, Math.floor(chunkBytes / bytes.tile));
  for (let firstTile = 0; firstTile < tiles; firstTile += tilesAtOnce) {
    const row = firstTile * tileRows;
    const count = Math.min(tilesAtOnce * tileRows, rows! - row);
    const data = readRows(weights, source, firstRow + row, count, dtype);
    const at = placement.offset + firstTile * bytes.tile;
    if (dtype === 'bf16z') {
      const packed = compressTiles(data, count, columns!, { firstTile, tiles });
      await writeAt(file, packed.tiles, at);
      await writeAt(file, packed.far, placement.offset + tiles * bytes.tile + firstTile * bytes.far);
    } else {
      await writeAt(file, packTiles(data, count, columns!, dtype), at);
    }
  }
}

/** All of it: a write to a disk that is nearly full can end early without an error. */
export async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
