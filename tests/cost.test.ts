import { describe, expect, it } from 'vitest';
import { costOf, tensor } from './support/operators.js';
import { inferKernel } from '../src/ir/infer.js';
import { buildProgram } from '../src/models/build.js';
import { findPreset } from '../src/models/presets.js';
import type { Cost, CostExtents } from '../src/ops/definition.js';
import { definitionOf } from '../src/ops/index.js';
import { makeOperator as op } from '../src/ops/make.js';
import { operatorsOf } from '../src/ir/visit.js';

/** Costs of every call of a model on one socket, with the layer that each belongs to. */
function modelCosts(preset: string, at: CostExtents): { layer: number | undefined; kernel: string; cost: Cost }[] {
  const limits = { rows: 16, samples: 16, slots: 16, context: 8192 };
  const program = buildProgram(findPreset(preset)!.config, { limits });
  const kernels = new Map(program.kernels.map((kernel) => [kernel.name, { kernel, types: inferKernel(kernel) }]));
  return program.calls.flatMap(({ kernel: name, origin }) => {
    const { kernel, types } = kernels.get(name)!;
    return [...operatorsOf(kernel.body)].map((operator) => ({
      layer: origin.layer,
      kernel: name,
      cost: definitionOf(operator.kind).cost(operator, (inner) => types.get(inner)!, at),
    }));
  });
}

const sum = (costs: readonly { cost: Cost }[], key: keyof Cost): number =>
  costs.reduce((total, { cost }) => total + cost[key], 0);

describe('Llama 3.1 8B, one token at context 4096', () => {
  const costs = modelCosts('llama-3.1-8b', { rows: 1, samples: 1, context: 4096 });
  const layer = costs.filter((item) => item.layer === 7);

  it('reads 218.10 M weights a layer, 436.2 MB', () => {
    // The two norms are kept in f32: 16384 bytes more than in bf16.
    expect(sum(layer, 'weightBytes') - 16384).toBe(2 * 218_112_000);
  });

  it('reads an LM head of 1.0507 GB, and one row of the embedding', () => {
    const head = costs.filter(({ kernel }) => kernel === 'lm_head');
    expect(sum(head, 'weightBytes') / 1e9).toBeCloseTo(1.0507, 4);
    // A row of bf16, and the 64 RoPE frequencies.
    const embed = costs.filter(({ kernel }) => kernel === 'embed');
    expect(sum(embed, 'weightBytes')).toBe(2 * 4096 + 4 * 64);
  });

  it('reads 0.5369 GB of KV cache, 15.546 GB in all', () => {
    const written = 32 * 2 * 8 * 128 * 2 + 4;
    expect(sum(costs, 'stateBytes') - written).toBe(536_870_912);
    expect((sum(costs, 'weightBytes') + 536_870_912) / 1e9).toBeCloseTo(15.546, 2);
  });

  it('makes 17.2 GFLOP', () => {
    expect(sum(costs, 'flops') / 1e9).toBeCloseTo(17.2, 1);
  });

  it('reads weights once for many rows, and the cache of every slot', () => {
    const at8 = modelCosts('llama-3.1-8b', { rows: 8, samples: 8, context: 4096 });
    const embedding = 7 * 2 * 4096;
    expect(sum(at8, 'weightBytes')).toBe(sum(costs, 'weightBytes') + embedding);
    expect(sum(at8, 'stateBytes')).toBe(8 * sum(costs, 'stateBytes'));
    expect(sum(at8, 'flops')).toBe(8 * sum(costs, 'flops'));
  });
});

it('rows of one slot share its cache', () => {
  const cache = tensor('bf16', 2, 4, 100, 16);
  const types = {
    q: tensor('f32', 'rows', 64),
    k: cache,
    v: cache,
    s: tensor('i32', 'rows'),
    p: tensor('i32', 'rows'),
  };
  const attention = (window: number) =>
    op(
      'attention',
      { q: 'q', keys: 'k', values: 'v', slots: 's', positions: 'p' },
      { y: 'y' },
      {},
      { heads: 4, scale: 1, softcap: 0, window },
    );
  const at = { rows: 32, samples: 1, context: 50 };
  expect(costOf(attention(0), types, at).stateBytes).toBe(2 * 2 * 4 * 50 * 16 * 2);
  expect(costOf(attention(10), types, at).stateBytes).toBe(2 * 2 * 4 * 10 * 16 * 2);
  expect(costOf(attention(0), types, at).flops).toBe(4 * 32 * 64 * 50);
});

it('block formats count their scales', () => {
  const types = { x: tensor('f32', 'rows', 64), w: tensor('q4_0', 8, 64) };
  const cost = costOf(op('linear', { x: 'x', weight: 'w' }, { y: 'y' }), types, { rows: 3, samples: 1, context: 0 });
  expect(cost).toEqual({ flops: 2 * 3 * 8 * 64, weightBytes: 8 * 2 * 18, stateBytes: 0, activationBytes: 3 * 72 * 4 });
});
