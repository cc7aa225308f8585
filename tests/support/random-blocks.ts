/** Quantized blocks with any bits in them, but scales of a common size. */
import { scaleOffsets } from '../../src/checkpoint/dequantize.js';
import { blockOf, type QuantizedDType } from '../../src/ir/formats.js';
import { f32ToF16Array } from '../../src/util/float.js';
import { uniform } from '../../src/util/prng.js';

/** Numbers in [0, 1), one after the other. */
export function seededRandom(seed: number): () => number {
  let count = 0;
  return () => uniform(count++, [seed, 0]);
}

export function randomBlocks(format: QuantizedDType, count: number, random: () => number): Uint8Array {
  const { bytes } = blockOf(format);
  const blocks = Uint8Array.from({ length: count * bytes }, () => Math.floor(random() * 256));
  for (let block = 0; block < count; block++) {
    for (const offset of scaleOffsets(format)) {
      // Of either sign: a minimum, and what llama.cpp makes of a block, may be negative.
      const [half] = f32ToF16Array(Float32Array.of((random() - 0.5) / 64));
      blocks[block * bytes + offset] = half! & 255;
      blocks[block * bytes + offset + 1] = half! >> 8;
    }
  }
  return blocks;
}
