import { describe, expect, it } from 'vitest';
import { findPreset } from '../../models/presets.js';
import { findMachine } from '../machines/index.js';
import { findPricedModel } from '../price.js';
import { simulate } from '../simulate.js';
import { bytesPerToken, flopsPerToken } from '../workload.js';
import { costModelWorkload } from './cost-model.js';
import { costModelParameters, costModelShapes, expectedDistinctExperts, type CostModelShape } from './shapes.js';

const machine = findMachine('sn40l');

describe('shapes', () => {
  it.each([
    // Published totals: 46.7B, 671B, 400B, 117B.
    ['mixtral-8x7b', 46.7e9],
    ['deepseek-r1', 671e9],
    ['llama-4-maverick', 400e9],
    ['gpt-oss-120b', 117e9],
  ])('%s has the published number of parameters', (name, total) => {
    const shape = costModelShapes.find((candidate) => candidate.name === name);
    expect(Math.abs(costModelParameters(shape!) / total - 1)).toBeLessThan(0.01);
  });

  it('are not presets: there is no program behind them', () => {
    for (const { name } of costModelShapes) expect(findPreset(name)).toBeUndefined();
  });
});

it('expects as many distinct experts as a simulation of choices gives', () => {
  expect(expectedDistinctExperts(8, 2, 1)).toBeCloseTo(2, 12);
  expect(expectedDistinctExperts(8, 8, 3)).toBe(8);
  // Two rows: 4 choices less the expected overlap, 2 x 2 / 8.
  expect(expectedDistinctExperts(8, 2, 2)).toBeCloseTo(4 - 0.5, 12);
  expect(expectedDistinctExperts(8, 2, 1000)).toBeCloseTo(8, 9);
});

it('a dense shape costs what the program of the same shape costs', () => {
  const shape: CostModelShape = {
    name: 'dense',
    source: 'test',
    description: 'Llama 3.1 8B',
    hidden: 4096,
    vocab: 128_256,
    attention: { kind: 'grouped', heads: 32, kvHeads: 8, headDim: 128 },
    runs: [{ layers: [{ denseFfn: 14_336 }], count: 32 }],
    expertBytes: 2,
    weightBytes: 2,
  };
  for (const schedule of ['operator', 'layer', 'looped'] as const) {
    const point = { schedule, sockets: 8, batch: 4, context: 4096 };
    const dense = costModelWorkload(shape, machine, point);
    const program = findPricedModel('llama-3.1-8b').workload(machine, point);
    expect(dense.calls.length).toBe(program.calls.length);
    expect(bytesPerToken(dense) / bytesPerToken(program)).toBeCloseTo(1, 3);
    expect(flopsPerToken(dense) / flopsPerToken(program)).toBeCloseTo(1, 2);
    const ratio = simulate(dense, machine).tpotUs / simulate(program, machine).tpotUs;
    expect(Math.abs(ratio - 1)).toBeLessThan(0.03);
  }
});

it.each(costModelShapes.map(({ name }) => [name]))('%s: batches touch more experts, looping helps', (name) => {
  const model = findPricedModel(name);
  const at = (schedule: 'layer' | 'looped', batch: number) =>
    simulate(model.workload(machine, { schedule, sockets: 16, batch, context: 4096 }), machine);
  expect(at('looped', 8).bytesPerToken).toBeGreaterThan(at('looped', 1).bytesPerToken);
  expect(at('looped', 1).tpotUs).toBeLessThan(at('layer', 1).tpotUs);
});
