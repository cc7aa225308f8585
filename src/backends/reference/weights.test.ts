import { describe, expect, it } from 'vitest';
import type { Weights } from '../../checkpoint/weights.js';
import type { DType, Value, ValueOrigin } from '../../ir/program.js';
import { CheckpointError } from '../../util/errors.js';
import { weightLoader } from './weights.js';

/** One tensor `t` of [4, 32] that counts from 0, and every read of it. */
function counting(): { weights: Weights; reads: [number, number][] } {
  const reads: [number, number][] = [];
  const readF32 = (_: string, first: number, rows: number): Float32Array => {
    reads.push([first, rows]);
    return Float32Array.from({ length: rows * 32 }, (_, i) => first * 32 + i + 1 / 3);
  };
  const weights: Weights = {
    path: 'model.safetensors',
    has: (name) => name === 't',
    describe: (name) => ({ name, dtype: 'f32', shape: [4, 32] }),
    read: (...args) => new Uint8Array(readF32(...args).buffer),
    readF32,
    names: () => ['t'],
    fingerprint: '',
    close: () => undefined,
  };
  return { weights, reads };
}

function value(shape: number[], dtype: DType = 'f32', more: Partial<ValueOrigin & { kind: 'checkpoint' }> = {}): Value {
  return { name: 'w', tensor: { dtype, shape, role: 'weight' }, origin: { kind: 'checkpoint', tensor: 't', ...more } };
}

describe('weightLoader', () => {
  it('reads the rows and the part that a value names, once', () => {
    const { weights, reads } = counting();
    const load = weightLoader(weights);
    const rows = { first: 1, count: 2 };
    expect([...load(value([2, 32], 'f32', { rows }), 0)].map(Math.floor)).toEqual(
      Array.from({ length: 64 }, (_, i) => 32 + i),
    );
    const shard = { axis: 1, parts: 2, replicas: 2 } as const;
    const sharded = value([2, 16], 'f32', { rows, shard });
    expect(Math.floor(load(sharded, 3)[16]!)).toBe(64 + 16);
    // Socket 2 has the same part.
    expect(load(sharded, 2)).toBe(load(sharded, 3));
    expect(load(sharded, 0)).not.toBe(load(sharded, 3));
    expect(reads).toEqual([
      [1, 2],
      [1, 2],
      [1, 2],
    ]);
  });

  it('rounds to the format of the program', () => {
    const load = weightLoader(counting().weights);
    const error = (dtype: DType): number =>
      Math.max(...load(value([4, 32], dtype), 0).map((x, i) => Math.abs(x - (i + 1 / 3)) / 128));
    expect(error('f32')).toBeLessThan(1e-7);
    for (const [dtype, low, high] of [
      ['f16', 1e-5, 5e-4],
      ['bf16', 1e-4, 4e-3],
      ['q8_0', 1e-4, 5e-3],
      ['q4_0', 1e-2, 0.13],
    ] as const) {
      expect(error(dtype)).toBeGreaterThan(low);
      expect(error(dtype)).toBeLessThan(high);
    }
  });

  it('refuses a tensor of another shape, and names it', () => {
    const load = weightLoader(counting().weights);
    const wrong = () => load(value([5, 32]), 0);
    expect(wrong).toThrow(CheckpointError);
    expect(wrong).toThrow('model.safetensors: tensor "t" is [4, 32], the model needs [5, 32]');
    expect(() => load(value([3, 32], 'f32', { rows: { first: 2, count: 3 } }), 0)).toThrow(CheckpointError);
  });

  it('refuses values that are not finite, with the place', () => {
    const { weights } = counting();
    const broken = Float32Array.from({ length: 64 }, (_, i) => (i === 37 ? NaN : i));
    const load = weightLoader({ ...weights, read: () => new Uint8Array(broken.buffer), readF32: () => broken });
    const message = 'model.safetensors: tensor "t" is not finite at element 69; the checkpoint is broken';
    const rows = { first: 1, count: 2 };
    expect(() => load(value([2, 32], 'f32', { rows }), 0)).toThrow(CheckpointError);
    for (const dtype of ['f32', 'q8_0'] as const) {
      expect(() => load(value([2, 32], dtype, { rows }), 0)).toThrow(message);
    }
  });
});
