import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../tests/support/random-blocks.js';
import { farExceptions, nearExceptions, tileBytesOf } from '../ir/packed-layout.js';
import { f32ToBf16Array } from '../util/float.js';
import { compressTiles, isCompressible } from './compress.js';

/** Read as linear_compressed.h says it, one weight at a time. */
function decompress(packed: Uint8Array, rows: number, columns: number): Uint16Array {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const { tile: tileBytes } = tileBytesOf('bf16z', columns);
  const result = new Uint16Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const tile = Math.floor(row / 16) * tileBytes;
    const lane = row % 16;
    for (let column = 0; column < columns; column++) {
      const group = tile + 64 + Math.floor(column / 8) * 192;
      const input = column % 8;
      const byte = 16 * Math.floor(lane / 4) + 8 * (Math.floor(input / 2) % 2) + 2 * (lane % 4) + (input % 2);
      const codes = packed[group + byte]!;
      const code = input < 4 ? codes & 15 : codes >> 4;
      const lower = packed[group + (input < 4 ? 64 : 128) + byte]!;
      result[row * columns + column] = (packed[tile + code]! << 8) | lower;
    }
    const far = tile + 64 * view.getUint32(tile + 20, true);
    for (let i = 0; i < view.getUint32(tile + 16, true); i++) {
      const near = i < nearExceptions;
      const [places, values] = near
        ? [tile + 24, tile + 24 + 4 * nearExceptions]
        : [far, far + 4 * farExceptions(columns)];
      const at = near ? i : i - nearExceptions;
      const place = view.getUint32(places + 4 * at, true);
      if (Math.floor((place % 32) / 2) !== lane) continue;
      result[row * columns + 2 * Math.floor(place / 32) + (place % 2)] = view.getUint16(values + 2 * at, true);
    }
  }
  return result;
}

function bytesOf(bits: Uint16Array): Uint8Array {
  return new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
}

/** As trained weights are: about normal. */
function normal(count: number, seed: number): Uint16Array {
  const random = seededRandom(seed);
  const value = (): number => 0.02 * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return f32ToBf16Array(Float32Array.from({ length: count }, value));
}

describe('bf16z', () => {
  it('gives every bit back, whatever the weights are', () => {
    const exponents = fc.uniqueArray(fc.integer({ min: 0, max: 0xfe }), { minLength: 1, maxLength: 8 });
    const shapes = fc.record({ rows: fc.integer({ min: 1, max: 40 }), groups: fc.integer({ min: 1, max: 12 }) });
    fc.assert(
      fc.property(shapes, exponents, fc.integer(), ({ rows, groups }, common, seed) => {
        const random = seededRandom(seed);
        const columns = 8 * groups;
        const pick = (most: number): number => Math.floor(random() * most);
        const bits = Uint16Array.from({ length: rows * columns }, () => {
          const exponent = random() < 0.004 ? pick(0xff) : common[pick(common.length)]!;
          return (pick(2) << 15) | (exponent << 7) | pick(0x80);
        });
        if (!isCompressible(bytesOf(bits), rows, columns)) return;
        const { tiles, far } = compressTiles(bytesOf(bits), rows, columns);
        expect(decompress(Buffer.concat([tiles, far]), rows, columns)).toEqual(bits);
      }),
      { numRuns: 150 },
    );
  });

  it('is the same in parts as whole', () => {
    const [rows, columns] = [70, 4096];
    const bits = normal(rows * columns, 3);
    // So many exceptions that a tile has them in both places.
    for (let i = 0; i < 3 * nearExceptions; i++) bits[1000 * i] = 0x7000 + i;
    const data = bytesOf(bits);
    const whole = compressTiles(data, rows, columns);
    const parts = [0, 2, 3].map((firstTile, i, firsts) => {
      const [first, end] = [16 * firstTile, 16 * (firsts[i + 1] ?? 5)];
      const part = data.subarray(2 * first * columns, 2 * Math.min(rows, end) * columns);
      return compressTiles(part, Math.min(rows, end) - first, columns, { firstTile, tiles: 5 });
    });
    expect(Buffer.concat(parts.map(({ tiles }) => tiles))).toEqual(Buffer.from(whole.tiles));
    expect(Buffer.concat(parts.map(({ far }) => far))).toEqual(Buffer.from(whole.far));
    expect(new DataView(whole.tiles.buffer).getUint32(16, true)).toBeGreaterThan(nearExceptions);
  });

  it('takes weights with as many exceptions as there is room for, and no more', () => {
    const columns = 64;
    const room = nearExceptions + farExceptions(columns);
    const withExceptions = (count: number): Uint8Array => {
      // Eight upper bytes in turn, and a ninth.
      const bits = Uint16Array.from({ length: 16 * columns }, (_, i) =>
        i < count ? 0x7000 : 0x3000 + 0x100 * (i % 8),
      );
      return bytesOf(bits);
    };
    expect(isCompressible(withExceptions(room), 16, columns)).toBe(true);
    expect(isCompressible(withExceptions(room + 1), 16, columns)).toBe(false);
    const random = seededRandom(1);
    const anything = Uint16Array.from({ length: 16 * columns }, () => Math.floor(random() * 0xff00));
    expect(isCompressible(bytesOf(anything), 16, columns)).toBe(false);
  });

  it('takes a quarter of the bytes away', () => {
    const { tile, far } = tileBytesOf('bf16z', 2048);
    expect(tile / (2 * 16 * 2048)).toBeCloseTo(0.751, 3);
    // Hardly ever read.
    expect(far / tile).toBeLessThan(0.01);
    expect(isCompressible(bytesOf(normal(64 * 2048, 7)), 64, 2048)).toBe(true);
  });
});
