import { describe, expect, it } from 'vitest';
import { modelConfig, modelNames, smallLimits } from '../../tests/support/models.js';
import { packedBytes } from '../ir/packed-layout.js';
import type { Name, Placement, Program, Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { findPreset } from '../models/presets.js';
import { packedLength } from './pack-weights.js';
import { compileModel } from './pipeline.js';

const capabilities = { memories: [{ name: 'ram', bytes: 1 << 30 }], tileBytes: 4096, defaultWorkers: 2 };

function compiled(config: ModelConfig, schedule: Schedule): readonly Program[] {
  const { step, response } = compileModel(config, { schedule, limits: smallLimits, capabilities }).plan;
  return response === undefined ? [step] : [step, response];
}

type Placed = readonly (readonly [Name, Placement])[];

/** Every weight and its place, in the order of the places. */
function placed(program: Program): Placed {
  return program.values
    .flatMap(({ name, origin }) =>
      origin.kind === 'checkpoint' && origin.placement !== undefined ? [[name, origin.placement] as const] : [],
    )
    .sort(([, a], [, b]) => a.offset - b.offset);
}

const layer = (i: number, ...more: string[]): string[] =>
  ['attn_norm', 'q', 'k', 'v', ...more, 'o', 'ffn_norm', 'gate', 'up', 'down'].map((name) => `w_${name}.${i}`);

describe('packWeights', () => {
  it('places weights in the order in which a token reads them', () => {
    const [program] = compiled(modelConfig('llama'), 'looped');
    const order = placed(program!).map(([name]) => name);
    expect(order).toEqual(['embedding', ...layer(0), ...layer(1), ...layer(2), 'w_norm', 'w_head']);
  });

  it('places a tied table once, where it is read first', () => {
    const [program] = compiled(modelConfig('llama-tied'), 'looped');
    const order = placed(program!).map(([name]) => name);
    expect(order).toEqual(['embedding', ...layer(0), ...layer(1), 'w_norm']);
  });

  it.each(modelNames)('places the weights of %s alike under every schedule', (name) => {
    const [first, ...others] = (['operator', 'layer', 'looped', 'response'] as const).flatMap((schedule) =>
      compiled(modelConfig(name), schedule).map(placed),
    );
    for (const other of others) expect(other).toEqual(first);
  });

  it.each(modelNames)('gives the weights of %s room on cache lines, without overlap, up to the length', (name) => {
    const [program] = compiled(modelConfig(name), 'looped');
    let end = 0;
    for (const [weight, { offset, bytes, form }] of placed(program!)) {
      const { tensor } = program!.values.find((value) => value.name === weight)!;
      expect(offset % 64).toBe(0);
      expect(offset).toBeGreaterThanOrEqual(end);
      expect(offset - end).toBeLessThan(64);
      expect(bytes).toBe(packedBytes(tensor));
      expect(form).toBe(tensor.shape.length === 2 ? 'tiles' : 'rows');
      end = offset + bytes;
    }
    expect(packedLength(program!)).toBe(end);
  });

  it.each(['llama', 'gemma2'] as const)('gives the stacks of %s a constant stride', (name) => {
    for (const program of compiled(modelConfig(name), 'response')) {
      const places = new Map(placed(program));
      const stacks = program.calls.flatMap(({ args }) =>
        args.flatMap((argument) => (argument.kind === 'stack' ? [argument.values] : [])),
      );
      const weights = stacks.filter(([first]) => places.has(first!));
      expect(weights.length).toBeGreaterThan(8);
      for (const stack of weights) {
        const offsets = stack.map((value) => places.get(value)!.offset);
        const strides = offsets.slice(1).map((offset, i) => offset - offsets[i]!);
        expect(new Set(strides).size).toBe(1);
      }
    }
  });

  it('rounds matrices up to tiles of 16 rows and pairs of columns', () => {
    const weight = (dtype: 'f32' | 'bf16', ...shape: number[]) => ({ dtype, shape, role: 'weight' as const });
    expect(packedBytes(weight('f32', 17, 5))).toBe(32 * 6 * 4);
    expect(packedBytes(weight('bf16', 16, 4))).toBe(16 * 4 * 2);
    expect(packedBytes(weight('f32', 7))).toBe(28);
    expect(packedBytes(weight('f32', 2 ** 30, 2 ** 30))).toBeUndefined();
  });

  it('needs hardly more than the weights of a published model', () => {
    const { config } = findPreset('llama-3.2-1b')!;
    const [program] = compiled(config, 'response');
    const exact = program!.values.reduce(
      (sum, { origin }) => sum + (origin.kind === 'checkpoint' ? (origin.placement?.bytes ?? 0) : 0),
      0,
    );
    expect(packedLength(program!) - exact).toBeLessThan(64 * 1024);
  });
});
