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
import { AbortedError, UnsupportedModelError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { firstNonFinite, nonFiniteError } from './finite.js';
import type { Weights } from './weights.js';

/** Changes when the meaning of a layout does. */
const formatVersion = 2;
/** About this many bytes of a checkpoint are in memory while packing. */
const chunkBytes = 8 << 20;

export interface PackOptions {
  readonly cacheDir: string;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

interface PackedWeight {
  readonly source: string;
  readonly firstRow: number;
  readonly tensor: Tensor;
  readonly placement: Placement;
}

/**
 * Path of the packed weights of this program, made if they are not in the cache.
 * @throws CheckpointError for weights that are not finite, StorageError where the cache cannot be written
 */
export async function packedWeightsFile(program: Program, weights: Weights, options: PackOptions): Promise<string> {
  const entries = packedEntries(program);
  const total = entries.reduce((end, { placement }) => Math.max(end, placement.offset + placement.bytes), 0);
  const hash = createHash('sha256')
    .update(JSON.stringify([formatVersion, weights.fingerprint, entries]))
    .digest('hex');
  const path = join(options.cacheDir, `weights-${hash.slice(0, 32)}.bin`);
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
    await file.write(readRows(weights, source, firstRow, rows!, tensor), 0, undefined, placement.offset);
    return;
  }
  const rowBytes = bytesOf(tensor.dtype, paddedColumns(columns!));
  const rowsAtOnce = Math.max(tileRows, Math.floor(chunkBytes / rowBytes / tileRows) * tileRows);
  for (let row = 0; row < rows!; row += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows! - row);
    const tiles = packTiles(readRows(weights, source, firstRow + row, count, tensor), count, columns!, tensor.dtype);
    await file.write(tiles, 0, undefined, placement.offset + row * rowBytes);
  }
}

/** Rows of a checkpoint tensor in the program's format; nothing is ever made less precise here. */
function readRows(weights: Weights, source: string, first: number, count: number, { dtype }: Tensor): Uint8Array {
  const { dtype: stored, shape } = weights.describe(source);
  const bytes = weights.read(source, first, count);
  const bad = firstNonFinite(bytes, stored);
  if (bad >= 0)
    throw nonFiniteError(weights, source, first * shape.slice(1).reduce((product, dim) => product * dim, 1) + bad);
  if (stored === dtype) return bytes;
  if (dtype === 'f32') {
    const data = weights.readF32(source, first, count);
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  throw new UnsupportedModelError(`tensor ${source} is stored as ${stored} and cannot be packed as ${dtype}`, {
    hint: 'use --quant f32',
  });
}

/** Tiles of 16 rows, rows and columns padded with zeros; layouts as in backends/cpu/support/linear.h. */
export function packTiles(data: Uint8Array, rows: number, columns: number, dtype: Tensor['dtype']): Uint8Array {
  const tiles = Math.ceil(rows / tileRows);
  const padded = padColumns(data, rows, columns, bytesOf(dtype, 1));
  // What is moved as one: an f32, an f16, or two neighbouring bf16.
  const View = dtype === 'f16' ? Uint16Array : Uint32Array;
  const unit = View.BYTES_PER_ELEMENT;
  const units = bytesOf(dtype, paddedColumns(columns)) / unit;
  const aligned = padded.byteOffset % unit === 0 ? padded : new Uint8Array(padded);
  const from = new View(aligned.buffer as ArrayBuffer, aligned.byteOffset, rows * units);
  const to = new View(tiles * tileRows * units);
  for (let row = 0; row < rows; row++) {
    const lane = row % tileRows;
    const tile = (row - lane) * units;
    const start = row * units;
    for (let i = 0; i < units; i++) to[tile + i * tileRows + lane] = from[start + i]!;
  }
  return new Uint8Array(to.buffer);
}

/** Rows with a zero behind them where their number of columns is odd. */
function padColumns(data: Uint8Array, rows: number, columns: number, elementBytes: number): Uint8Array {
  if (columns % 2 === 0) return data;
  const [from, to] = [columns * elementBytes, paddedColumns(columns) * elementBytes];
  const padded = new Uint8Array(rows * to);
  for (let row = 0; row < rows; row++) padded.set(data.subarray(row * from, (row + 1) * from), row * to);
  return padded;
}
