/**
 * The formats of numbers, as data. Quantized formats cut a row into blocks that share scales; block layouts and sizes are
 * GGUF's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, ggml-common.h), bit for bit.
 */
import type { DType } from './program.js';

/** What is stored together: how many elements, in how many bytes. */
export interface Block {
  readonly elements: number;
  readonly bytes: number;
}

const blocks: Readonly<Record<DType, Block>> = {
  f32: { elements: 1, bytes: 4 },
  i32: { elements: 1, bytes: 4 },
  bf16: { elements: 1, bytes: 2 },
  // Without what every tile of 16 rows has in front, see packed-layout.ts.
  bf16z: { elements: 8, bytes: 12 },
  f16: { elements: 1, bytes: 2 },
  q8_0: { elements: 32, bytes: 34 },
  q4_0: { elements: 32, bytes: 18 },
  q4_1: { elements: 32, bytes: 20 },
  q5_0: { elements: 32, bytes: 22 },
  q5_1: { elements: 32, bytes: 24 },
  q4_k: { elements: 256, bytes: 144 },
  q5_k: { elements: 256, bytes: 176 },
  q6_k: { elements: 256, bytes: 210 },
};

/** Formats of blocks that share scales. */
export type QuantizedDType = Exclude<DType, 'f32' | 'i32' | 'bf16' | 'bf16z' | 'f16'>;

export function blockOf(dtype: DType): Block {
  return blocks[dtype];
}

export function isQuantized(dtype: DType): dtype is QuantizedDType {
  return blocks[dtype].elements > 1 && dtype !== 'bf16z';
}

/** The format that has the same numbers, one by one. */
export function plainFormat<T extends DType>(dtype: T): Exclude<T, 'bf16z'> | 'bf16' {
  return dtype === 'bf16z' ? 'bf16' : (dtype as Exclude<T, 'bf16z'>);
}

export const dtypes = Object.keys(blocks) as readonly DType[];
