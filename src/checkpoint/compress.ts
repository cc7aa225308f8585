/**
 * bf16z: bfloat16 in a little more than 12 bits, without loss. The upper byte of a bfloat16 is its sign and the upper seven
 * bits of its exponent. Weights of a matrix are of similar size, so that eight of these 128 cover all but a few: they are
 * written as codes of four bits with the sign, eight for every tile, and the few as exceptions. What trained models leave of
 * their exponents is about 2.6 bits (Zhang et al., DFloat11, arXiv 2504.11651); codes of a fixed length take more, and are
 * read at the speed of memory. backends/cpu/support/linear_compressed.h has the layout of a tile, and reads it.
 */
import { compressedGroup, farExceptions, nearExceptions, tileBytesOf, tileRows } from '../ir/packed-layout.js';
import { assert } from '../util/assert.js';

/** Upper bytes, without their sign, that have a code. */
const codes = 8;
const signBit = 0x80;
/** The header of a tile, and a vector: four inputs of 16 rows. */
const lineBytes = 64;

/** Where tiles stand among those of their matrix. */
export interface TilePlace {
  readonly firstTile: number;
  readonly tiles: number;
}

/** Tiles, and what is kept behind the last one of the matrix for each of them. */
export interface CompressedTiles {
  readonly tiles: Uint8Array;
  readonly far: Uint8Array;
}

/**
 * Whether every tile of these rows has room for its exceptions.
 * @param data rows of bfloat16, little-endian, beginning with a tile
 */
export function isCompressible(data: Uint8Array, rows: number, columns: number): boolean {
  const room = nearExceptions + farExceptions(columns);
  for (let tile = 0; tile * tileRows < rows; tile++) {
    if (codingOf(rowsOfTile(data, tile, columns)).exceptions > room) return false;
  }
  return true;
}

/** Of the last tile, those that are there. */
function rowsOfTile(data: Uint8Array, tile: number, columns: number): Uint8Array {
  const bytes = 2 * tileRows * columns;
  return data.subarray(tile * bytes, (tile + 1) * bytes);
}

/** Compresses rows that are compressible. @param place default: these rows are the matrix */
export function compressTiles(
  data: Uint8Array,
  rows: number,
  columns: number,
  place: TilePlace = { firstTile: 0, tiles: Math.ceil(rows / tileRows) },
): CompressedTiles {
  assert(columns % compressedGroup === 0, `${columns} columns are not whole groups`);
  const count = Math.ceil(rows / tileRows);
  const { tile: tileBytes, far: farBytes } = tileBytesOf('bf16z', columns);
  const [tiles, far] = [new Uint8Array(count * tileBytes), new Uint8Array(count * farBytes)];
  for (let tile = 0; tile < count; tile++) {
    const to = tiles.subarray(tile * tileBytes, (tile + 1) * tileBytes);
    const exceptions = packTile(rowsOfTile(data, tile, columns), columns, to);
    const at = place.firstTile + tile;
    const farLines = ((place.tiles - at) * tileBytes + at * farBytes) / lineBytes;
    writeExceptions(exceptions, columns, { farLines, header: to, far: far.subarray(tile * farBytes) });
  }
  return { tiles, far };
}

/** Of a tile: the code of each upper byte without sign, or -1. */
interface Coding {
  readonly codeOf: Int8Array;
  readonly uppers: readonly number[];
  /** How many weights have none. */
  readonly exceptions: number;
}

/** The eight most frequent upper bytes; of equally frequent ones the smaller. */
function codingOf(data: Uint8Array): Coding {
  const counts = new Uint32Array(signBit);
  for (let i = 1; i < data.length; i += 2) counts[data[i]! & 0x7f]!++;
  const present = [...counts.keys()].filter((upper) => counts[upper]! > 0);
  const uppers = present.sort((a, b) => counts[b]! - counts[a]! || a - b).slice(0, codes);
  const codeOf = new Int8Array(signBit).fill(-1);
  uppers.forEach((upper, code) => (codeOf[upper] = code));
  const covered = uppers.reduce((sum, upper) => sum + counts[upper]!, 0);
  return { codeOf, uppers, exceptions: data.length / 2 - covered };
}

/** A weight without a code: its index in a tile of bf16, and its bits. */
type Exception = readonly [place: number, value: number];

/** Writes upper bytes, codes and lower bytes. Rows that are not there stay 0, whatever code that is: nobody reads them. */
function packTile(data: Uint8Array, columns: number, to: Uint8Array): Exception[] {
  const { codeOf, uppers } = codingOf(data);
  uppers.forEach((upper, code) => {
    to[code] = upper;
    to[codes + code] = signBit | upper;
  });
  const exceptions: Exception[] = [];
  const rows = data.length / 2 / columns;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = 2 * (row * columns + column);
      const [lower, upper] = [data[at]!, data[at + 1]!];
      const code = codeOf[upper & 0x7f]!;
      if (code < 0) {
        exceptions.push([(column >> 1) * 2 * tileRows + 2 * row + (column & 1), (upper << 8) | lower]);
        continue;
      }
      const group = lineBytes + Math.floor(column / compressedGroup) * 3 * lineBytes;
      const second = (column >> 2) & 1;
      const byte = placeInVector(row, column);
      to[group + byte]! |= (code | ((upper & signBit) >> 4)) << (4 * second);
      to[group + lineBytes * (1 + second) + byte] = lower;
    }
  }
  return exceptions.sort(([a], [b]) => a - b);
}

/** Pairs of inputs of four rows to each quarter of a vector: of the first two inputs, then of the other two. */
function placeInVector(row: number, column: number): number {
  return 16 * (row >> 2) + 8 * ((column >> 1) & 1) + 2 * (row & 3) + (column & 1);
}

function writeExceptions(
  exceptions: readonly Exception[],
  columns: number,
  to: { readonly farLines: number; readonly header: Uint8Array; readonly far: Uint8Array },
): void {
  const room = farExceptions(columns);
  assert(exceptions.length <= nearExceptions + room, `${exceptions.length} exceptions in a tile`);
  const header = new DataView(to.header.buffer, to.header.byteOffset);
  header.setUint32(2 * codes, exceptions.length, true);
  header.setUint32(2 * codes + 4, to.farLines, true);
  const near = exceptions.slice(0, nearExceptions);
  const placesAt = 2 * codes + 8;
  writeList(near, header, placesAt, placesAt + 4 * nearExceptions);
  writeList(exceptions.slice(nearExceptions), new DataView(to.far.buffer, to.far.byteOffset), 0, 4 * room);
}

function writeList(exceptions: readonly Exception[], to: DataView, placesAt: number, valuesAt: number): void {
  exceptions.forEach(([place, value], i) => {
    to.setUint32(placesAt + 4 * i, place, true);
    to.setUint16(valuesAt + 2 * i, value, true);
  });
}
