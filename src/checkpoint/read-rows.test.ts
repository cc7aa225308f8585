/** Rows on their way from a checkpoint to a packed file: what is not finite, there or after rounding, is refused. */
import { describe, expect, it } from 'vitest';
import type { DType } from '../ir/program.js';
import { f32ToBf16Array } from '../util/float.js';
import { readRows, readRowsF32 } from './read-rows.js';
import type { Weights } from './weights.js';

/** One row of float32 numbers. */
function weightsOf(values: readonly number[]): Weights {
  const data = Float32Array.from(values);
  const read = (): Uint8Array => new Uint8Array(data.slice().buffer);
  return {
    ...{ path: 'model.safetensors', fingerprint: '', has: () => true, names: () => ['w'], close: () => undefined },
    ...{ describe: (name) => ({ name, dtype: 'f32', shape: [1, data.length] }), read, readF32: () => data },
  };
}

const row = (largest: number): number[] => Array.from({ length: 32 }, (_, i) => (i === 7 ? largest : i / 32));
const formats: readonly DType[] = ['f16', 'q8_0', 'q4_0'];

describe('rows of a checkpoint', () => {
  it('are rounded to the format that is asked for', () => {
    const values = row(3);
    const bytes = readRows(weightsOf(values), 'w', 0, 1, 'bf16');
    expect(bytes).toEqual(new Uint8Array(f32ToBf16Array(Float32Array.from(values)).buffer));
    expect(readRowsF32(weightsOf(values), 'w', 0, 1)).toEqual(Float32Array.from(values));
  });

  it.each(['f32', 'bf16', ...formats] as const)('are refused where a number is none, in %s', (dtype) => {
    expect(() => readRows(weightsOf(row(NaN)), 'w', 0, 1, dtype)).toThrow(/tensor "w" is not finite at element 7/);
  });

  it.each(formats)('are refused where a number is too large for %s', (dtype) => {
    const largest = 2 ** 25;
    expect(() => readRows(weightsOf(row(largest)), 'w', 0, 1, dtype)).toThrow(
      `model.safetensors: tensor "w" has numbers too large for ${dtype}`,
    );
    expect(readRows(weightsOf(row(largest)), 'w', 0, 1, 'bf16')).toHaveLength(64);
  });
});
