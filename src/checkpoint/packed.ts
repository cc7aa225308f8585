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
import { assert, unreachable } from '../util/assert.js';
import { AbortedError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { f32ToBf16Array, f32ToF16Array } from '../util/float.js';
import { firstNonFinite, nonFiniteError } from './finite.js';
import { blockBytes, blockElements, quantizedBytes, quantizeQ4_0, quantizeQ8_0 } from './quantize.js';
import type { Weights } from './weights.js';

/** Changes when the meaning of a layout does. */
const formatVersion = 3;
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
async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
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
  return stored === dtype ? bytes : convert(weights.readF32(source, first, count), dtype);
}

function convert(values: Float32Array, dtype: Tensor['dtype']): Uint8Array {
  switch (dtype) {
    case 'f32':
      return bytesOfArray(values);
    case 'bf16':
      return bytesOfArray(f32ToBf16Array(values));
    case 'f16':
      return bytesOfArray(f32ToF16Array(values));
    case 'q8_0':
    case 'q4_0': {
      const blocks = new Uint8Array(quantizedBytes(dtype, values.length));
      (dtype === 'q8_0' ? quantizeQ8_0 : quantizeQ4_0)(values, blocks);
      return blocks;
    }
    case 'i32':
      return unreachable('weights are not integers');
    default:
      return dtype satisfies never;
  }
}

function bytesOfArray(array: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Tiles of 16 rows, rows and columns padded with zeros; layouts as in backends/cpu/support/linear*.h. */
export function packTiles(data: Uint8Array, rows: number, columns: number, dtype: Tensor['dtype']): Uint8Array {
  switch (dtype) {
    case 'f32':
      return interleave(padColumns(data, rows, columns, 4), rows, paddedColumns(columns), 4);
    case 'bf16':
      // Two neighbours are moved as one.
      return interleave(padColumns(data, rows, columns, 2), rows, paddedColumns(columns) / 2, 4);
    case 'f16':
      return interleave(padColumns(data, rows, columns, 2), rows, paddedColumns(columns), 2);
    case 'q8_0':
      return packBlocks(data, rows, columns, blockBytes.q8_0, moveQ8Block);
    case 'q4_0':
      return packBlocks(data, rows, columns, blockBytes.q4_0, moveQ4Block);
    case 'i32':
      return unreachable('weights are not integers');
    default:
      return dtype satisfies never;
  }
}

/** Unit i of row r of a tile goes to place i * 16 + r. */
function interleave(data: Uint8Array, rows: number, units: number, unitBytes: 2 | 4): Uint8Array {
  const View = unitBytes === 2 ? Uint16Array : Uint32Array;
  const aligned = data.byteOffset % unitBytes === 0 ? data : new Uint8Array(data);
  const from = new View(aligned.buffer as ArrayBuffer, aligned.byteOffset, rows * units);
  const to = new View(Math.ceil(rows / tileRows) * tileRows * units);
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

type MoveBlock = (from: Uint8Array, start: number, to: Uint8Array, target: number, lane: number) => void;

/** Blocks of 16 rows come together: 16 scales, then the integers of all. */
function packBlocks(data: Uint8Array, rows: number, columns: number, bytes: number, move: MoveBlock): Uint8Array {
  const blocks = columns / blockElements;
  const to = new Uint8Array(Math.ceil(rows / tileRows) * tileRows * blocks * bytes);
  for (let row = 0; row < rows; row++) {
    const lane = row % tileRows;
    const tile = (row - lane) * blocks * bytes;
    for (let block = 0; block < blocks; block++) {
      const start = (row * blocks + block) * bytes;
      const target = tile + block * bytes * tileRows;
      to[target + 2 * lane] = data[start]!;
      to[target + 2 * lane + 1] = data[start + 1]!;
      move(data, start + 2, to, target + 2 * tileRows, lane);
    }
  }
  return to;
}

/** int8 become bytes q + 128, four neighbours of a row together. */
function moveQ8Block(from: Uint8Array, start: number, to: Uint8Array, target: number, lane: number): void {
  for (let i = 0; i < blockElements; i++) {
    to[target + 64 * (i >> 2) + 4 * lane + (i & 3)] = from[start + i]! ^ 0x80;
  }
}

function moveQ4Block(from: Uint8Array, start: number, to: Uint8Array, target: number, lane: number): void {
  for (let i = 0; i < blockElements / 2; i++) to[target + 64 * (i >> 2) + 4 * lane + (i & 3)] = from[start + i]!;
}
