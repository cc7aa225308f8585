/**
 * The shape that matrices have in memory when they are packed: tiles of 16 rows, an even number of columns. What is added
 * to reach it is 0. Written by checkpoint/packed.ts, placed by packWeights, read by the kernels.
 */
import { checkedProduct } from '../util/checked.js';
import type { DType, Tensor } from './program.js';
import { bytesOf } from './tensor.js';

/** Rows of a tile: what one vector holds. */
export const tileRows = 16;

/** Columns as they are stored: kernels take two at a time. */
export function paddedColumns(columns: number): number {
  return columns + (columns % 2);
}

/** Columns that bf16z keeps together. */
export const compressedGroup = 8;

/** Weights outside of its eight codes that a tile of bf16z has itself. */
export const nearExceptions = 6;

/** How many more it may have, by its columns, behind the last tile of its matrix: about two in a thousand. */
export function farExceptions(columns: number): number {
  return Math.floor(columns / 32) + 2;
}

const cacheLine = 64;

/** Bytes of a tile, in whole cache lines, and of what there is behind the last one for each of them. */
export interface TileBytes {
  readonly tile: number;
  readonly far: number;
}

export function tileBytesOf(dtype: DType, columns: number): TileBytes {
  if (dtype !== 'bf16z') return { tile: wholeLines(bytesOf(dtype, tileRows * paddedColumns(columns))), far: 0 };
  return { tile: cacheLine + bytesOf(dtype, tileRows * columns), far: wholeLines(farExceptions(columns) * (4 + 2)) };
}

function wholeLines(bytes: number): number {
  return Math.ceil(bytes / cacheLine) * cacheLine;
}

/** Bytes of a packed weight, or undefined beyond 2^53; vectors are stored as they are. */
export function packedBytes({ dtype, shape }: Tensor): number | undefined {
  const [rows, columns] = shape;
  if (typeof rows !== 'number') return undefined;
  if (columns === undefined) return bytesOf(dtype, rows);
  if (shape.length !== 2 || typeof columns !== 'number') return undefined;
  const { tile, far } = tileBytesOf(dtype, columns);
  return checkedProduct([Math.ceil(rows / tileRows), tile + far]);
}
