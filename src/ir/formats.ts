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

/** Formats of blocks. */
export type QuantizedDType = Exclude<DType, 'f32' | 'i32' | 'bf16' | 'f16'>;

export function blockOf(dtype: DType): Block {
  return blocks[dtype];
}

export function isQuantized(dtype: DType): dtype is QuantizedDType {
  return blocks[dtype].elements > 1;
}

export const dtypes = Object.keys(blocks) as readonly DType[];
