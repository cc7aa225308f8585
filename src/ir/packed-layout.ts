/**
 * The shape that matrices have in memory when they are packed: tiles of 16 rows, an even number of columns. What is added
 * to reach it is 0. Written by checkpoint/packed.ts, placed by packWeights, read by the kernels.
 */
import { checkedProduct } from '../util/checked.js';
import type { Tensor } from './program.js';
import { bytesOf } from './tensor.js';

/** Rows of a tile: what one vector holds. */
export const tileRows = 16;

/** Columns as they are stored: kernels take two at a time. */
export function paddedColumns(columns: number): number {
  return columns + (columns % 2);
}

/** Bytes of a packed weight, or undefined beyond 2^53; vectors are stored as they are. */
export function packedBytes({ dtype, shape }: Tensor): number | undefined {
  const [rows, columns] = shape;
  if (typeof rows !== 'number') return undefined;
  if (columns === undefined) return bytesOf(dtype, rows);
  if (shape.length !== 2 || typeof columns !== 'number') return undefined;
  const elements = checkedProduct([Math.ceil(rows / tileRows) * tileRows, paddedColumns(columns)]);
  return elements === undefined ? undefined : bytesOf(dtype, elements);
}
