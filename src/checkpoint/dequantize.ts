/**
 * The weights that blocks stand for, for every quantized format that is read. `d` and `m` are binary16, q are unsigned
 * integers of the bits in the name; fields stand in this order (ggml-common.h, and dequantize_row_* in ggml-quants.c):
 *
 *   q8_0  32: d, 32 x int8                                    w = d * q
 *   q4_0  32: d, 16 bytes of q[j] | q[j+16]<<4                w = d * (q - 8)
 *   q4_1  32: d, m, 16 bytes                                  w = d * q + m
 *   q5_0  32: d, 4 bytes of fifth bits, 16 bytes              w = d * (q - 16)
 *   q5_1  32: d, m, 4 bytes, 16 bytes                         w = d * q + m
 *   q4_k 256: d, m, 12 bytes of 6-bit scales and mins, 128    w = d * scale * q - m * min, for 8 groups of 32
 *   q5_k 256: d, m, 12 bytes, 32 bytes of fifth bits, 128     as q4_k
 *   q6_k 256: 128 bytes, 64 bytes of upper bits, 16 int8, d   w = d * scale * (q - 32), for 16 groups of 16
 *
 * Products are exact in float64 and are rounded to float32 once, as in ggml.
 */
import { blockOf, type QuantizedDType } from '../ir/formats.js';
import { assert } from '../util/assert.js';
import { f16ToF32Array } from '../util/float.js';

/** Writes the weights of whole blocks to `target`, as many as there are. */
export function dequantize(format: QuantizedDType, source: Uint8Array, target: Float32Array): void {
  const { elements, bytes } = blockOf(format);
  const count = source.length / bytes;
  assert(
    count * elements === target.length,
    `${target.length} weights do not fill ${source.length} bytes of ${format}`,
  );
  const decode = decoders[format];
  const offsets = scaleOffsets(format);
  const scales = offsets.map((offset) => readScales(source, count, bytes, offset));
  for (let block = 0; block < count; block += 1) {
    decode(source, block * bytes, target, block * elements, scales[0]![block]!, scales[1]?.[block] ?? 0);
  }
}

/** Where in a block its binary16 numbers are: d, then m where there is one. */
export function scaleOffsets(format: QuantizedDType): readonly number[] {
  switch (format) {
    case 'q8_0':
    case 'q4_0':
    case 'q5_0':
      return [0];
    case 'q4_1':
    case 'q5_1':
    case 'q4_k':
    case 'q5_k':
      return [0, 2];
    case 'q6_k':
      return [208];
    default:
      return format satisfies never;
  }
}

function readScales(blocks: Uint8Array, count: number, stride: number, offset: number): Float32Array {
  const halves = new Uint16Array(count);
  for (let block = 0; block < count; block += 1) {
    const at = block * stride + offset;
    halves[block] = blocks[at]! | (blocks[at + 1]! << 8);
  }
  return f16ToF32Array(halves);
}

/** Decodes the block at source[at] to target[to]. */
type Decoder = (source: Uint8Array, at: number, target: Float32Array, to: number, d: number, m: number) => void;

const decoders: Readonly<Record<QuantizedDType, Decoder>> = {
  q8_0(source, at, target, to, d) {
    for (let i = 0; i < 32; i += 1) target[to + i] = d * ((source[at + 2 + i]! << 24) >> 24);
  },
  q4_0(source, at, target, to, d) {
    for (let i = 0; i < 32; i += 1) target[to + i] = d * (nibble(source, at + 2, i) - 8);
  },
  q4_1(source, at, target, to, d, m) {
    for (let i = 0; i < 32; i += 1) target[to + i] = d * nibble(source, at + 4, i) + m;
  },
  q5_0(source, at, target, to, d) {
    for (let i = 0; i < 32; i += 1) {
      target[to + i] = d * ((nibble(source, at + 6, i) | (bit(source, at + 2, i) << 4)) - 16);
    }
  },
  q5_1(source, at, target, to, d, m) {
    for (let i = 0; i < 32; i += 1) {
      target[to + i] = d * (nibble(source, at + 8, i) | (bit(source, at + 4, i) << 4)) + m;
    }
  },
  q4_k(source, at, target, to, d, m) {
    for (let group = 0; group < 8; group += 1) {
      const [scale, min] = groupScales(source, at + 4, group);
      for (let i = 0; i < 32; i += 1) {
        target[to + 32 * group + i] = d * scale * groupNibble(source, at + 16, group, i) - m * min;
      }
    }
  },
  q5_k(source, at, target, to, d, m) {
    for (let group = 0; group < 8; group += 1) {
      const [scale, min] = groupScales(source, at + 4, group);
      for (let i = 0; i < 32; i += 1) {
        const fifth = (source[at + 16 + i]! >> group) & 1;
        target[to + 32 * group + i] = d * scale * (groupNibble(source, at + 48, group, i) | (fifth << 4)) - m * min;
      }
    }
  },
  q6_k(source, at, target, to, d) {
    for (let i = 0; i < 256; i += 1) {
      const scale = (source[at + 192 + (i >> 4)]! << 24) >> 24;
      target[to + i] = d * scale * (q6Value(source, at, i) - 32);
    }
  },
};

/** Element i of 32: the first 16 are lower halves. */
function nibble(source: Uint8Array, at: number, i: number): number {
  return i < 16 ? source[at + i]! & 15 : source[at + i - 16]! >> 4;
}

function bit(source: Uint8Array, at: number, i: number): number {
  return (source[at + (i >> 3)]! >> (i & 7)) & 1;
}

/** Element i of a group of 32, of which two share 32 bytes. */
function groupNibble(source: Uint8Array, at: number, group: number, i: number): number {
  const byte = source[at + 32 * (group >> 1) + i]!;
  return (group & 1) === 0 ? byte & 15 : byte >> 4;
}

/** Scale and min of a group, out of 12 bytes: six bits each, those of the later groups in two parts. */
function groupScales(source: Uint8Array, at: number, group: number): readonly [scale: number, min: number] {
  const first = source[at + group]!;
  if (group < 4) return [first & 63, source[at + group + 4]! & 63];
  const low = source[at + group + 4]!;
  return [(low & 15) | ((source[at + group - 4]! >> 6) << 4), (low >> 4) | ((first >> 6) << 4)];
}

/** 0 to 63. Of each half of 128, four runs of 32 share bytes: 64 of lower bits, two runs each, and 32 of upper bits. */
function q6Value(source: Uint8Array, at: number, i: number): number {
  const half = i >> 7;
  const run = (i >> 5) & 3;
  const low = source[at + 64 * half + 32 * (run & 1) + (i & 31)]!;
  const high = source[at + 128 + 32 * half + (i & 31)]!;
  return ((run < 2 ? low : low >> 4) & 15) | (((high >> (2 * run)) & 3) << 4);
}
