import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dequantize } from './dequantize.js';
import type { QuantFormat } from './quantize.js';
import { quantizeQ4_0, quantizeQ8_0, quantizedBytes } from './quantize.js';

/** Made by ggml itself (scripts/make-peer-fixtures.mjs); all arrays little-endian base64. */
interface Blocks {
  readonly cases: readonly ({ readonly name: string; readonly input: string } & Record<
    QuantFormat,
    { readonly packed: string; readonly values: string }
  >)[];
}
const fixture = new URL('../../tests/fixtures/ggml-blocks.json', import.meta.url);
const blocks = JSON.parse(readFileSync(fixture, 'utf8')) as Blocks;

const quantizers = { q8_0: quantizeQ8_0, q4_0: quantizeQ4_0 };

function bytesOf(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'));
}

function floatsOf(base64: string): Float32Array {
  return new Float32Array(bytesOf(base64).buffer);
}

describe.each(['q8_0', 'q4_0'] as const)('%s', (format) => {
  const quantize = quantizers[format];

  test.each(blocks.cases)('equals ggml on $name', (expected) => {
    const source = floatsOf(expected.input);
    const packed = new Uint8Array(quantizedBytes(format, source.length));
    quantize(source, packed);
    expect(packed).toEqual(bytesOf(expected[format].packed));
    const values = new Float32Array(source.length);
    dequantize(format, packed, values);
    expect(values).toEqual(floatsOf(expected[format].values));
  });

  // Half a step, and what rounding the scale to 11 bits adds; q4_0 cuts the far side at 7 steps.
  test('is off by no more than its step', () => {
    const finite = fc.float({ min: -1000, max: 1000, noNaN: true });
    fc.assert(
      fc.property(fc.array(finite, { minLength: 32, maxLength: 32 }), (weights) => {
        const source = Float32Array.from(weights);
        const packed = new Uint8Array(quantizedBytes(format, 32));
        const values = new Float32Array(32);
        quantize(source, packed);
        dequantize(format, packed, values);
        const largest = Math.max(...source.map(Math.abs));
        const step = format === 'q8_0' ? largest / 127 : largest / 8;
        const share = format === 'q8_0' ? 0.57 : 1.01;
        // A scale that is a subnormal half is exact to 2^-25, and is multiplied by up to 127.
        const allowed = share * step + 2 ** -18;
        for (let i = 0; i < 32; i += 1) expect(Math.abs(values[i]! - source[i]!)).toBeLessThanOrEqual(allowed);
      }),
    );
  });

  test('refuses sizes that do not fit', () => {
    expect(() => quantize(new Float32Array(32), new Uint8Array(17))).toThrow('do not fill');
    expect(() => quantizedBytes(format, 33)).toThrow('whole blocks');
  });
});
