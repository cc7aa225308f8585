/**
 * The two quantized formats that kloop makes itself, bit for bit as ggml's reference makes them (ggml-quants.c). Both
 * cut a row into blocks of 32 weights with one binary16 scale `d` in front, and keep integers:
 *
 *   q8_0   34 bytes: d, 32 x int8                             w = d * q
 *   q4_0   18 bytes: d, 16 bytes; byte j = q[j] | q[j+16]<<4  w = d * (q - 8)
 *
 * All arithmetic is float32, since the rounding of every intermediate value shows in the bits.
 */
import { assert } from '../util/assert.js';
import { f32ToF16 } from '../util/float.js';

export type QuantFormat = 'q8_0' | 'q4_0';

/** Weights of one block; a row's length must be a multiple of it. */
export const blockElements = 32;

/** Bytes of one block. */
export const blockBytes: Readonly<Record<QuantFormat, number>> = { q8_0: 34, q4_0: 18 };

/** Bytes that `elements` weights take; `elements` is a multiple of 32. */
export function quantizedBytes(format: QuantFormat, elements: number): number {
  assert(elements % blockElements === 0, `${elements} weights are not whole blocks`);
  return (elements / blockElements) * blockBytes[format];
}

/** Writes `source` (finite, whole blocks) to `target` (quantizedBytes long): scale = largest magnitude / 127. */
export function quantizeQ8_0(source: Float32Array, target: Uint8Array): void {
  checkSizes('q8_0', source.length, target.length);
  const scale = new Scale();
  for (let from = 0, to = 0; from < source.length; from += blockElements, to += blockBytes.q8_0) {
    let largest = 0;
    for (let i = 0; i < blockElements; i += 1) {
      const magnitude = Math.abs(source[from + i]!);
      if (magnitude > largest) largest = magnitude;
    }
    const inverse = scale.write(Math.fround(largest / 127), target, to);
    for (let i = 0; i < blockElements; i += 1) {
      const q = Math.fround(source[from + i]! * inverse);
      // Ties away from zero, as C's roundf; Math.round would take them up.
      target[to + 2 + i] = (q < 0 ? q - 0.5 : q + 0.5) | 0;
    }
  }
}

/**
 * Writes `source` (finite, whole blocks) to `target`: the weight of largest magnitude, with its sign, becomes -8, so
 * that all sixteen values are in use on its side.
 */
export function quantizeQ4_0(source: Float32Array, target: Uint8Array): void {
  checkSizes('q4_0', source.length, target.length);
  const scale = new Scale();
  for (let from = 0, to = 0; from < source.length; from += blockElements, to += blockBytes.q4_0) {
    let largest = 0;
    let extreme = 0;
    for (let i = 0; i < blockElements; i += 1) {
      const magnitude = Math.abs(source[from + i]!);
      if (magnitude <= largest) continue;
      largest = magnitude;
      extreme = source[from + i]!;
    }
    const inverse = scale.write(Math.fround(extreme / -8), target, to);
    for (let i = 0; i < 16; i += 1) {
      target[to + 2 + i] = nibble(source[from + i]!, inverse) | (nibble(source[from + 16 + i]!, inverse) << 4);
    }
  }
}

/** 0 to 15; rounds half up by truncation, which the shift by 8 keeps positive. */
function nibble(weight: number, inverse: number): number {
  const q = Math.fround(Math.fround(weight * inverse) + 8.5) | 0;
  return q > 15 ? 15 : q;
}

function checkSizes(format: QuantFormat, elements: number, bytes: number): void {
  assert(quantizedBytes(format, elements) === bytes, `${elements} weights do not fill ${bytes} bytes of ${format}`);
}

/** Writes scales as binary16; holds the cell in which a float32 is seen as bits. */
class Scale {
  private readonly value = new Float32Array(1);
  private readonly bits = new Uint32Array(this.value.buffer);

  /** Puts `d` to target[at..at+2) and returns its inverse, of the float32 before rounding; 0 for 0. */
  write(d: number, target: Uint8Array, at: number): number {
    this.value[0] = d;
    const half = f32ToF16(this.bits[0]!);
    target[at] = half & 0xff;
    target[at + 1] = half >> 8;
    return d === 0 ? 0 : Math.fround(1 / d);
  }
}
