import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { passContext } from '../../tests/support/layered-program.js';
import { arbitraryRecipe, programOf, randomInputs, randomWeights, type Recipe } from '../../tests/random-program.js';
import { createMachine } from '../ir/interpret.js';
import type { Program, Value } from '../ir/program.js';
import { operatorsOf } from '../ir/visit.js';
import { verify } from '../ir/verify.js';
import { buildProgram } from '../models/build.js';
import { parseModelConfig } from '../models/parse-config.js';
import { findPreset } from '../models/presets.js';
import { UnsupportedModelError, UsageError } from '../util/errors.js';
import { fuseLayers } from './fuse-layers.js';
import { loopCalls } from './loop-calls/index.js';
import { loopTokens } from './response.js';
import { shard } from './shard.js';

const limits = { rows: 4, samples: 2, slots: 2, context: 32 };

function sharded(program: Program, sockets: number): { program: Program; notes: readonly string[] } {
  verify(program);
  const result = shard(sockets)(program, passContext);
  verify(result.program);
  return { program: result.program, notes: result.report.notes };
}

function preset(name: string, sockets: number): { program: Program; notes: readonly string[] } {
  return sharded(buildProgram(findPreset(name)!.config, { limits }), sockets);
}

function valueOf(program: Program, name: string): Value {
  const value = program.values.find((candidate) => candidate.name === name);
  if (value === undefined) throw new Error(`no value ${name}`);
  return value;
}

function kernelText(program: Program, name: string): string {
  const kernel = program.kernels.find((candidate) => candidate.name === name)!;
  return [...operatorsOf(kernel.body)].map(({ kind }) => kind).join(' ');
}

describe('shard', () => {
  it('keeps 323, 35, 4 and 1 calls for Llama 3.1 8B on 8 sockets', () => {
    const { program, notes } = preset('llama-3.1-8b', 8);
    expect(program.calls.length).toBe(323);
    expect(program.sockets).toBe(8);
    const layer = fuseLayers(program, passContext).program;
    const looped = loopCalls(layer, passContext).program;
    const response = loopTokens(16)(looped, passContext).program;
    for (const stage of [layer, looped, response]) verify(stage);
    expect([layer, looped, response].map(({ calls }) => calls.length)).toEqual([35, 4, 1]);
    expect(notes).toEqual(['8 sockets: 160 projections divided by columns, 64 by rows with an all-reduce each']);
  });

  it('divides projections by columns and rows, and sums before the residual', () => {
    const { program } = preset('llama-3.1-8b', 8);
    const shapes = [
      'w_q.5',
      'w_k.5',
      'w_o.5',
      'w_gate.5',
      'w_down.5',
      'w_head',
      'embedding',
      'w_attn_norm.5',
      'keys.5',
    ];
    expect(shapes.map((name) => valueOf(program, name).tensor.shape)).toEqual([
      [512, 4096],
      [128, 4096],
      [4096, 512],
      [1792, 4096],
      [4096, 1792],
      [16_032, 4096],
      [128_256, 4096],
      [4096],
      [2, 1, 32, 128],
    ]);
    expect(valueOf(program, 'w_k.5').origin).toEqual({
      kind: 'checkpoint',
      tensor: 'model.layers.5.self_attn.k_proj.weight',
      shard: { axis: 0, parts: 8, replicas: 1 },
    });
    expect(valueOf(program, 'w_down.5').origin).toMatchObject({ shard: { axis: 1, parts: 8, replicas: 1 } });
    expect(valueOf(program, 'embedding').origin).not.toHaveProperty('shard');
    expect(kernelText(program, 'o_proj')).toBe('linear');
    expect(kernelText(program, 'attn_add')).toBe('allReduce add');
    expect(kernelText(program, 'ffn_add')).toBe('allReduce add');
    expect(kernelText(program, 'lm_head')).toBe('gatherRows rmsNorm linear allGather');
    const attention = [...operatorsOf(program.kernels.find(({ name }) => name === 'attention')!.body)][0]!;
    expect(attention.attributes).toMatchObject({ heads: 4 });
  });

  it('duplicates key/value heads where there are more sockets than heads', () => {
    const { program, notes } = preset('llama-3.1-8b', 16);
    expect(valueOf(program, 'w_v.0').origin).toMatchObject({ shard: { axis: 0, parts: 8, replicas: 2 } });
    expect(valueOf(program, 'w_v.0').tensor.shape).toEqual([128, 4096]);
    expect(valueOf(program, 'w_q.0').tensor.shape).toEqual([256, 4096]);
    expect(valueOf(program, 'values.0').tensor.shape).toEqual([2, 1, 32, 128]);
    expect(notes[1]).toBe('each of 8 key/value heads is held by 2 sockets');
  });

  it('keeps a tied embedding whole for the lookup, and divides it for the head', () => {
    const { program } = preset('llama-3.2-1b', 4);
    expect(valueOf(program, 'embedding').tensor.shape).toEqual([128_256, 2048]);
    expect(valueOf(program, 'embedding_shard')).toMatchObject({
      tensor: { shape: [32_064, 2048] },
      origin: { kind: 'checkpoint', tensor: 'model.embed_tokens.weight', shard: { axis: 0, parts: 4, replicas: 1 } },
    });
  });

  it('sums before a post-norm, gathers before a cap, and divides biases but no norms of heads', () => {
    const gemma = preset('gemma-2-2b', 4).program;
    expect(kernelText(gemma, 'attn_add')).toBe('allReduce rmsNorm add');
    expect(kernelText(gemma, 'lm_head')).toBe('gatherRows rmsNorm linear allGather softcap');
    expect(loopCalls(gemma, passContext).program.calls.length).toBe(4);
    const qwen2 = preset('qwen2.5-7b', 4).program;
    expect(valueOf(qwen2, 'b_q.0').tensor.shape).toEqual([896]);
    expect(valueOf(qwen2, 'b_k.0').origin).toMatchObject({ shard: { axis: 0, parts: 4, replicas: 1 } });
    const qwen3 = preset('qwen3-8b', 8).program;
    expect(valueOf(qwen3, 'w_q_norm.0').tensor.shape).toEqual([128]);
    expect(valueOf(qwen3, 'w_q_norm.0').origin).not.toHaveProperty('shard');
  });

  it('leaves the head whole where the vocabulary does not divide, and says so', () => {
    const config = { ...findPreset('llama-3.1-8b')!.config, vocab: 1001, layers: 1 };
    const { program, notes } = sharded(buildProgram(config, { limits }), 2);
    expect(valueOf(program, 'w_head').tensor.shape).toEqual([1001, 4096]);
    expect(notes.at(-1)).toBe('the LM head is whole on every socket: 1001 tokens do not divide');
  });

  it('refuses what does not divide, with the numbers', () => {
    expect(() => preset('smollm2-135m', 2)).toThrow(UnsupportedModelError);
    expect(() => preset('smollm2-135m', 2)).toThrow(/3 key\/value heads cannot be divided among 2 sockets/);
    expect(() => preset('llama-3.1-8b', 24)).toThrow(/32 attention heads cannot be divided among 24 sockets/);
    const odd = { ...findPreset('llama-3.1-8b')!.config, ffn: 14_338, layers: 1 };
    expect(() => sharded(buildProgram(odd, { limits }), 4)).toThrow(/14338 features cannot be divided among 4 sockets/);
    const blocks = buildProgram({ ...odd, ffn: 96 }, { limits, weightFormat: 'q8_0' });
    expect(() => sharded(blocks, 2)).toThrow(/96 features in blocks of 32 cannot be divided among 2 sockets/);
    for (const count of [0, -1, 1.5, NaN, 1e9]) expect(() => shard(count)).toThrow(UsageError);
  });

  it('changes nothing for one socket', () => {
    const program = buildProgram(findPreset('tinystories-15m')!.config, { limits });
    expect(sharded(program, 1).program).toBe(program);
  });
});

/** Largest difference of the logits of two steps, relative to their size. */
function distance(a: Program, b: Program, seed: number): number {
  const [left, right] = [a, b].map((program) => createMachine(program, randomWeights(seed)));
  let worst = 0;
  for (const step of [0, 1]) {
    const { inputs, extents } = randomInputs(a, seed, { step });
    const [x, y] = [left!, right!].map((machine) => machine.run(inputs, extents).get('logits')!.data);
    const scale = Math.max(1, ...x!.map(Math.abs));
    x!.forEach((value, i) => (worst = Math.max(worst, Math.abs(value - y![i]!) / scale)));
  }
  return worst;
}

describe('sharded programs mean the same', () => {
  const tiny = {
    architectures: ['Qwen3ForCausalLM'],
    num_hidden_layers: 2,
    hidden_size: 16,
    intermediate_size: 32,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 4,
    vocab_size: 24,
    max_position_embeddings: 32,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: true,
  };

  it.each(['LlamaForCausalLM', 'Qwen2ForCausalLM', 'Qwen3ForCausalLM', 'Gemma2ForCausalLM'])(
    'on 2, 4 and 8 sockets: %s',
    (architecture) => {
      const json = { ...tiny, architectures: [architecture], query_pre_attn_scalar: 4, sliding_window: 8 };
      const config = parseModelConfig(json, 'tiny');
      const program = buildProgram(config, { limits, weightFormat: 'f32', stateFormat: 'f32' });
      for (const sockets of [2, 4, 8]) {
        const { program: divided } = sharded(program, sockets);
        expect(distance(program, divided, sockets)).toBeLessThan(1e-5);
        const looped = loopCalls(fuseLayers(divided, passContext).program, passContext).program;
        expect(distance(divided, looped, sockets)).toBe(0);
      }
    },
  );

  it('for random programs', () => {
    const even: fc.Arbitrary<Recipe> = arbitraryRecipe.map((recipe) => ({
      ...recipe,
      format: 'f32',
      queriesPerHead: recipe.kvHeads === 1 ? 4 : 2,
    }));
    fc.assert(
      fc.property(even, fc.nat(), fc.constantFrom(2, 4), (recipe, seed, sockets) => {
        const program = programOf(recipe);
        const divided = sharded(program, sockets).program;
        expect(divided.calls.length).toBe(program.calls.length);
        expect(distance(program, divided, seed)).toBeLessThan(1e-5);
      }),
      { numRuns: 60 },
    );
  });
});
