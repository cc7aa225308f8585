import { describe, expect, it } from 'vitest';
import { modelConfig, smallLimits, type ModelName } from '../../tests/support/models.js';
import type { Loop, Program, RegionPlan, Schedule } from '../ir/program.js';
import { loopsOf } from '../ir/visit.js';
import type { ModelConfig } from '../models/model-config.js';
import { findPreset } from '../models/presets.js';
import { compileModel } from './pipeline.js';

const capabilities = { memories: [{ name: 'L2', bytes: 1 << 20 }], tileBytes: 4096, defaultWorkers: 1 };

function compiled(config: ModelConfig, schedule: Schedule, workers: number): Program {
  const { plan } = compileModel(config, { schedule, limits: smallLimits, capabilities, workers });
  return plan.response ?? plan.step;
}

function planOf({ body }: { body: { plan?: RegionPlan } }): RegionPlan {
  if (body.plan === undefined) throw new Error('no plan');
  return body.plan;
}

/** The body of the loop over layers. */
function layerLoop(program: Program): Loop {
  return program.kernels.flatMap(({ body }) => [...loopsOf(body)]).find(({ over }) => over === 'layer')!;
}

function stages(name: ModelName | 'llama-3.1-8b', workers: number): [string, string][] {
  const config = name === 'llama-3.1-8b' ? findPreset(name)!.config : modelConfig(name);
  const { stages } = planOf(layerLoop(compiled(config, 'looped', workers)));
  return stages.map((stage) => [stage.name, stage.split]);
}

describe('planStages', () => {
  it('makes four stages of a layer where the workers divide the key/value heads', () => {
    expect(stages('llama-3.1-8b', 8)).toEqual([
      ['attn_norm', 'heads'],
      ['o_proj', 'features'],
      ['ffn_norm', 'features'],
      ['down_proj', 'features'],
    ]);
    expect(stages('llama-3.1-8b', 2)).toHaveLength(4);
  });

  it('makes five where they do not, or where a head is no whole number of tiles', () => {
    expect(stages('llama-3.1-8b', 3)).toEqual([
      ['attn_norm', 'features'],
      ['rope_append', 'heads'],
      ['o_proj', 'features'],
      ['ffn_norm', 'features'],
      ['down_proj', 'features'],
    ]);
    // Heads of 8.
    expect(stages('llama', 2).map(([name]) => name)).toEqual(stages('llama-3.1-8b', 3).map(([name]) => name));
  });

  it('keeps norms per head with the heads', () => {
    expect(stages('qwen3', 2)).toEqual(stages('llama-3.1-8b', 8));
    expect(stages('qwen3', 3)[1]).toEqual(['rope_append', 'heads']);
  });

  it('divides attention by context where heads alone would leave workers idle', () => {
    const attention = (
      name: ModelName | 'llama-3.1-8b',
      workers: number,
      context: number,
      schedule?: Schedule,
    ): string[] => {
      const config = name === 'llama-3.1-8b' ? findPreset(name)!.config : modelConfig(name);
      const limits = { ...smallLimits, context };
      const options = { limits, capabilities: { ...capabilities, contextBlock: 32 }, workers };
      const { plan } = compileModel(config, { ...options, schedule: schedule ?? 'looped' });
      const plans = schedule === undefined ? [planOf(layerLoop(plan.step))] : plan.step.kernels.map(planOf);
      return plans.flatMap(({ stages }) =>
        stages.filter(({ name }) => /rope|attention/.test(name)).map(({ split }) => split),
      );
    };
    expect(attention('llama-3.1-8b', 3, 64)).toEqual(['context']);
    expect(attention('qwen3', 3, 64)).toEqual(['context']);
    // One block has no parts.
    expect(attention('llama-3.1-8b', 3, 32)).toEqual(['heads']);
    // In a stage of its own; what appends to the cache knows nothing of it.
    expect(attention('llama-tied', 2, 64, 'operator').slice(0, 2)).toEqual(['heads', 'context']);
    expect(attention('llama-3.1-8b', 4, 64)).toEqual([]);
  });

  it('plans both layers of a body of two alike, with a stage for each norm that ends a branch', () => {
    const splits = stages('gemma2', 2).map(([, split]) => split);
    const half = ['heads', 'features', 'features', 'features', 'features', 'features'];
    expect(splits).toEqual([...half, ...half]);
  });

  it('has one stage for each kernel of an operator schedule', () => {
    for (const kernel of compiled(modelConfig('llama'), 'operator', 2).kernels) {
      const plan = planOf(kernel);
      const expected = kernel.name === 'sample' || kernel.name === 'embed' ? plan.stages.length : 1;
      expect(plan.stages.length, kernel.name).toBe(expected);
      expect(plan.stages.length).toBeLessThanOrEqual(2);
    }
  });

  it('orders neighbouring stages, and the last of an iteration before the first of the next', () => {
    const plan = planOf(layerLoop(compiled(modelConfig('llama'), 'looped', 2)));
    const last = plan.stages.length - 1;
    expect(plan.handOffs).toEqual([
      ...Array.from({ length: last }, (_, from) => ({ from, to: from + 1, distance: 0 })),
      { from: last, to: 0, distance: 1 },
    ]);
  });

  it('gives workers copies only of what no other stage and nobody outside reads', () => {
    for (const name of ['llama', 'qwen3', 'gemma2'] as const) {
      const loop = layerLoop(compiled(modelConfig(name), 'response', 2));
      const { replicated } = planOf(loop);
      expect(replicated.length, name).toBeGreaterThan(0);
      const carried = loop.bindings.flatMap((binding) =>
        binding.kind === 'carried' ? [binding.name, binding.next] : [],
      );
      expect(replicated.filter((local) => carried.includes(local))).toEqual([]);
    }
  });
});
