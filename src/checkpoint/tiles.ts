/**
 * Matrices as tiles of 16 rows, the layouts that backends/cpu/support/linear*.h read. Unquantized, one vector holds the same
 * column (or pair of columns) of 16 rows. Quantized, a block of 16 rows comes together and takes as many bytes as 16
 * blocks of the file: binary16 scales of all rows, then [bytes][16] of small scales, then weights as vectors of
 * [16 rows][4 bytes], a group of 32 columns at a time. Where the binary16 scales are half a cache line, two blocks stand
 * together, scales of both in front, so that every vector is a cache line; a last block without another stands alone.
 *
 *   eight bits   byte 4j + k of a row is column 4j + k, + 128
 *   four bits    byte k of vector j: column 4j + k below, 16 + 4j + k above
 *   fifth bits   one vector in front: byte k has bit j of column 4j + k, and bit 4 + j of column 16 + 4j + k
 *   sixth bits   two vectors in front: byte k has bits 2j, 2j + 1 of column 4j + k; the other one of 16 + 4j + k
 */
import { blockOf, isQuantized, type QuantizedDType } from '../ir/formats.js';
import { paddedColumns, tileBytesOf, tileRows } from '../ir/packed-layout.js';
import type { DType } from '../ir/program.js';
import { unreachable } from '../util/assert.js';
import { compressTiles } from './compress.js';
import { scaleOffsets } from './dequantize.js';

/**
 * Tiles of 16 rows, rows and columns padded with zeros.
 * @param data rows as they are stored; for bf16z those of bf16, and all rows of the matrix
 */
export function packTiles(data: Uint8Array, rows: number, columns: number, dtype: DType): Uint8Array {
  if (isQuantized(dtype)) return packBlocks(data, rows, columns, dtype);
  switch (dtype) {
    case 'f32':
      return interleave(padColumns(data, rows, columns, 4), rows, paddedColumns(columns), 4);
    case 'bf16':
      // Two neighbours are moved as one.
      return interleave(padColumns(data, rows, columns, 2), rows, paddedColumns(columns) / 2, 4);
    case 'bf16z': {
      const { tiles, far } = compressTiles(data, rows, columns);
      return Buffer.concat([tiles, far]);
    }
    case 'f16':
      return interleave(padColumns(data, rows, columns, 2), rows, paddedColumns(columns), 2);
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

function packBlocks(data: Uint8Array, rows: number, columns: number, format: QuantizedDType): Uint8Array {
  const { elements, bytes } = blockOf(format);
  const offsets = scaleOffsets(format);
  const move = movers[format];
  const blocks = columns / elements;
  const places = Array.from({ length: blocks }, (_, block) => blockPlace(format, blocks, block));
  const { tile: tileBytes } = tileBytesOf(format, columns);
  const to = new Uint8Array(Math.ceil(rows / tileRows) * tileBytes);
  for (let row = 0; row < rows; row++) {
    const lane = row % tileRows;
    const tile = Math.floor(row / tileRows) * tileBytes;
    for (let block = 0; block < blocks; block++) {
      const start = (row * blocks + block) * bytes;
      const { scales, rest } = places[block]!;
      let target = tile + scales + 2 * lane;
      for (const offset of offsets) {
        to[target] = data[start + offset]!;
        to[target + 1] = data[start + offset + 1]!;
        target += 2 * tileRows;
      }
      move(data, start, to, tile + rest, lane);
    }
  }
  return to;
}

/** Where in a tile of so many blocks one has its binary16 scales, and the rest: `block_at` of linear_quantized.h. */
function blockPlace(format: QuantizedDType, blocks: number, block: number): { scales: number; rest: number } {
  const blockBytes = tileRows * blockOf(format).bytes;
  const scaleBytes = tileRows * 2 * scaleOffsets(format).length;
  const together = scaleBytes < vectorBytes && (block | 1) < blocks ? 2 : 1;
  const before = block % together;
  const start = (block - before) * blockBytes;
  return {
    scales: start + before * scaleBytes,
    rest: start + together * scaleBytes + before * (blockBytes - scaleBytes),
  };
}

/** Moves all but the binary16 scales of the block from[start] to its lane of to[target]. */
type Mover = (from: Uint8Array, start: number, to: Uint8Array, target: number, lane: number) => void;

/** Bytes of one vector, of sixteen rows of small scales, and of a group of 32 in four bits. */
const vectorBytes = 4 * tileRows;
const nibbleBytes = 4 * vectorBytes;

const movers: Readonly<Record<QuantizedDType, Mover>> = {
  q8_0(from, start, to, target, lane) {
    for (let i = 0; i < 32; i++) to[at(target, i >> 2, lane, i & 3)] = from[start + 2 + i]! ^ 0x80;
  },
  q4_0: (from, start, to, target, lane) => moveNibbles(from, start + 2, to, target, lane),
  q4_1: (from, start, to, target, lane) => moveNibbles(from, start + 4, to, target, lane),
  q5_0: (from, start, to, target, lane) => moveFiveBits(from, start + 2, to, target, lane),
  q5_1: (from, start, to, target, lane) => moveFiveBits(from, start + 4, to, target, lane),
  q4_k(from, start, to, target, lane) {
    moveScales(from, start + 4, 12, to, target, lane);
    for (let group = 0; group < 8; group++) {
      const nibbles = target + 12 * tileRows + group * nibbleBytes;
      moveGroup(from, start + 16 + 32 * (group >> 1), 4 * (group & 1), to, nibbles, lane);
    }
  },
  q5_k(from, start, to, target, lane) {
    moveScales(from, start + 4, 12, to, target, lane);
    for (let group = 0; group < 8; group++) {
      const fifth = target + 12 * tileRows + group * (vectorBytes + nibbleBytes);
      for (let i = 0; i < 32; i++) {
        const bit = (from[start + 16 + i]! >> group) & 1;
        to[at(fifth, 0, lane, i & 3)]! |= bit << (4 * (i >> 4) + ((i >> 2) & 3));
      }
      moveGroup(from, start + 48 + 32 * (group >> 1), 4 * (group & 1), to, fifth + vectorBytes, lane);
    }
  },
  q6_k(from, start, to, target, lane) {
    moveScales(from, start + 192, 16, to, target, lane);
    for (let group = 0; group < 8; group++) {
      const upper = target + 16 * tileRows + group * (2 * vectorBytes + nibbleBytes);
      // Four groups to a half of the block: two of them share lower bits, all of them upper bits.
      const [half, run] = [group >> 2, group & 3];
      for (let i = 0; i < 32; i++) {
        const bits = (from[start + 128 + 32 * half + i]! >> (2 * run)) & 3;
        to[at(upper, i >> 4, lane, i & 3)]! |= bits << (2 * ((i >> 2) & 3));
      }
      const lower = start + 64 * half + 32 * (run & 1);
      moveGroup(from, lower, 4 * (run >> 1), to, upper + 2 * vectorBytes, lane);
    }
  },
};

/** Byte k of the row `lane` in vector `vector` behind `base`. */
function at(base: number, vector: number, lane: number, k: number): number {
  return base + vectorBytes * vector + 4 * lane + k;
}

function moveScales(
  from: Uint8Array,
  start: number,
  count: number,
  to: Uint8Array,
  target: number,
  lane: number,
): void {
  for (let i = 0; i < count; i++) to[target + tileRows * i + lane] = from[start + i]!;
}

/** Sixteen bytes that are in the order of the tiles already. */
function moveNibbles(from: Uint8Array, start: number, to: Uint8Array, target: number, lane: number): void {
  for (let i = 0; i < 16; i++) to[at(target, i >> 2, lane, i & 3)] = from[start + i]!;
}

function moveFiveBits(from: Uint8Array, start: number, to: Uint8Array, target: number, lane: number): void {
  for (let i = 0; i < 32; i++) {
    const bit = (from[start + (i >> 3)]! >> (i & 7)) & 1;
    to[at(target, 0, lane, i & 3)]! |= bit << (4 * (i >> 4) + ((i >> 2) & 3));
  }
  moveNibbles(from, start + 4, to, target + vectorBytes, lane);
}

/** One half (`shift` 0 or 4) of 32 bytes: a group of 32. */
function moveGroup(from: Uint8Array, start: number, shift: number, to: Uint8Array, target: number, lane: number): void {
  for (let i = 0; i < 16; i++) {
    const [low, high] = [(from[start + i]! >> shift) & 15, (from[start + 16 + i]! >> shift) & 15];
    to[at(target, i >> 2, lane, i & 3)] = low | (high << 4);
  }
}
