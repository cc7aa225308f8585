/** Blocks against what scripts/gguf/make-fixtures.py, which shares no code with this, makes of them; and their tiles. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { blockOf, dtypes, isQuantized } from '../ir/formats.js';
import { dequantize, scaleOffsets } from './dequantize.js';
import { firstNonFinite } from './finite.js';
import { packTiles } from './tiles.js';

const fixture = new URL('../../tests/fixtures/gguf/blocks.json', import.meta.url);
const fixtures = JSON.parse(readFileSync(fixture, 'utf8')) as Record<string, { blocks: string; values: string }>;
const bytesOf = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, 'base64'));

describe.each(dtypes.filter(isQuantized))('%s', (format) => {
  const blocks = bytesOf(fixtures[format]!.blocks);
  const { elements, bytes } = blockOf(format);

  test('stands for the weights that it should', () => {
    const expected = new Float32Array(bytesOf(fixtures[format]!.values).buffer);
    const actual = new Float32Array(expected.length);
    dequantize(format, blocks, actual);
    expect(actual).toEqual(expected);
  });

  test('refuses sizes that do not fit', () => {
    expect(() => dequantize(format, blocks, new Float32Array(elements))).toThrow('do not fill');
  });

  test('is finite where its scales are', () => {
    expect(firstNonFinite(blocks, format)).toBe(-1);
    for (const offset of scaleOffsets(format)) {
      const broken = new Uint8Array(blocks);
      broken[3 * bytes + offset + 1] = 0xfc;
      expect(firstNonFinite(broken, format)).toBe(3 * elements);
    }
  });

  // What the tiles mean is tested with the kernels that read them (backends/cpu/linear.test.ts).
  test('becomes tiles of as many bytes, padded to 16 rows and to whole cache lines', () => {
    expect(packTiles(blocks, 1, 3 * elements, format).length).toBe(Math.ceil((16 * 3 * bytes) / 64) * 64);
    const tiles = packTiles(blocks, 4, 2 * elements, format);
    expect(tiles.length).toBe(16 * 2 * bytes);
    const bits = (data: Uint8Array): number =>
      data.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0);
    // q8_0 turns a bit of every weight.
    if (format !== 'q8_0') expect(bits(tiles)).toBe(bits(blocks));
  });
});
