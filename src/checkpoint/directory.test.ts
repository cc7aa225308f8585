import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { TestTensor } from '../../tests/support/safetensors.js';
import { writeSafetensors } from '../../tests/support/safetensors.js';
import { CheckpointError, UnsupportedModelError } from '../util/errors.js';
import { openCheckpoint } from './directory.js';

let dir: string;
beforeEach(() => {
  dir = join(mkdtempSync(join(tmpdir(), 'kloop-directory-')), 'tiny');
  mkdirSync(dir);
  writeJson('config.json', config);
  writeJson('tokenizer.json', {});
  writeSafetensors(join(dir, 'model.safetensors'), tensors);
});
afterEach(() => rmSync(join(dir, '..'), { recursive: true, force: true }));

const writeJson = (name: string, json: unknown) => {
  writeFileSync(join(dir, name), JSON.stringify(json));
};
const config = {
  architectures: ['LlamaForCausalLM'],
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 10,
  max_position_embeddings: 16,
  bos_token_id: 1,
  eos_token_id: 2,
  torch_dtype: 'float32',
};
const zeros = (dtype: string, ...shape: number[]): TestTensor => ({
  dtype,
  shape,
  data: new Uint8Array(shape.reduce((product, size) => product * size, dtype === 'F32' ? 4 : 2)),
});
/** As transformers names them, written out. */
const tensors: Record<string, TestTensor> = {
  'model.embed_tokens.weight': zeros('BF16', 10, 8),
  'model.layers.0.input_layernorm.weight': zeros('F32', 8),
  'model.layers.0.mlp.down_proj.weight': zeros('BF16', 8, 12),
  'model.layers.0.mlp.gate_proj.weight': zeros('BF16', 12, 8),
  'model.layers.0.mlp.up_proj.weight': zeros('BF16', 12, 8),
  'model.layers.0.post_attention_layernorm.weight': zeros('BF16', 8),
  'model.layers.0.self_attn.k_proj.weight': zeros('BF16', 4, 8),
  'model.layers.0.self_attn.o_proj.weight': zeros('BF16', 8, 8),
  'model.layers.0.self_attn.q_proj.weight': zeros('BF16', 8, 8),
  'model.layers.0.self_attn.v_proj.weight': zeros('BF16', 4, 8),
  'model.norm.weight': zeros('BF16', 8),
  'lm_head.weight': zeros('BF16', 10, 8),
};
const open = () => {
  const checkpoint = openCheckpoint(dir);
  checkpoint.weights.close();
  return checkpoint;
};

it('opens a directory with only the necessary files', () => {
  const checkpoint = open();
  expect(checkpoint.config).toMatchObject({ name: 'tiny', layers: 1, tied: false, dtype: 'bf16' });
  expect(checkpoint.generation).toEqual({ eos: [2], bos: 1 });
  expect(checkpoint.tokenizerFile).toBe(join(dir, 'tokenizer.json'));
  expect(checkpoint).not.toHaveProperty('tokenizerConfig');
  expect(checkpoint).not.toHaveProperty('chatTemplate');
});

describe('generation', () => {
  it('merges ids of both files, and takes the suggested sampling', () => {
    writeJson('generation_config.json', {
      eos_token_id: [3, 2],
      do_sample: true,
      temperature: 0.6,
      top_k: 20,
      top_p: 0.95,
      repetition_penalty: 1.1,
    });
    const expected = { eos: [3, 2], bos: 1, temperature: 0.6, topK: 20, topP: 0.95, repetitionPenalty: 1.1 };
    expect(open().generation).toEqual(expected);
    writeJson('generation_config.json', { do_sample: false, temperature: 0.6, eos_token_id: null });
    expect(open().generation).toEqual({ eos: [2], bos: 1, temperature: 0 });
  });

  it.each([
    [{ eos_token_id: 10 }, 'eos_token_id 10 is not below vocab_size 10'],
    [{ eos_token_id: 'x' }, 'eos_token_id "x"'],
    [{ top_p: 1.5 }, 'top_p 1.5'],
    [{ temperature: -1 }, 'temperature -1'],
    [{ top_k: 2 ** 31 }, 'top_k 2147483648'],
    [{ repetition_penalty: 0.0001 }, 'repetition_penalty 0.0001'],
    [[], 'the content'],
  ])('refuses %j', (json, message) => {
    writeJson('generation_config.json', json);
    expect(open).toThrow(CheckpointError);
    expect(open).toThrow(`generation_config.json: ${message}`);
  });
});

describe('chat templates', () => {
  it('are a string, a list, or a file', () => {
    writeJson('tokenizer_config.json', { chat_template: 'plain' });
    expect(open().chatTemplate).toBe('plain');
    expect(open()).not.toHaveProperty('toolTemplate');
    const list = [
      { name: 'tool_use', template: 'tools' },
      { name: 'default', template: 'usual' },
    ];
    writeJson('tokenizer_config.json', { chat_template: list });
    expect(open()).toMatchObject({ chatTemplate: 'usual', toolTemplate: 'tools' });
    expect(open().tokenizerConfig).toEqual({ chat_template: list });
    writeFileSync(join(dir, 'chat_template.jinja'), 'separate');
    expect(open().chatTemplate).toBe('separate');
  });

  it.each([3, [1], [{ name: 'default' }]])('are not %j', (value) => {
    writeJson('tokenizer_config.json', { chat_template: value });
    expect(open).toThrow(/chat_template .* is neither a string nor a list/);
  });
});

describe('broken directories', () => {
  it.each(['config.json', 'tokenizer.json', 'model.safetensors'])('miss %s', (name) => {
    rmSync(join(dir, name));
    expect(open).toThrow(CheckpointError);
    expect(open).toThrow(name);
  });

  it.each(['config.json', 'generation_config.json', 'tokenizer_config.json'])('have a broken %s', (name) => {
    writeFileSync(join(dir, name), '{\n"a": \u0007');
    expect(open).toThrow(new RegExp(`/${name.replace('.', '\\.')}: is not valid JSON`));
    writeFileSync(join(dir, name), Uint8Array.of(0x22, 0xff, 0x22));
    expect(open).toThrow(`${name}: is not UTF-8 text`);
    rmSync(join(dir, name));
    mkdirSync(join(dir, name));
    expect(open).toThrow('is not a regular file');
  });

  it.each([
    ['config.json', undefined],
    ['config.json', 'architectures'],
    ['config.json', 'hidden_size'],
    ['config.json', 'torch_dtype'],
    ['generation_config.json', 'temperature'],
    ['tokenizer_config.json', 'chat_template'],
  ])('have values nested deeper than a stack in %s, as %s', (name, field) => {
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    const json = JSON.stringify({ ...(name === 'config.json' ? config : {}), [field ?? '']: '@' });
    writeFileSync(join(dir, name), field === undefined ? deep : json.replace('"@"', deep));
    expect(open).toThrow(new RegExp(`/${name}: .*\\[{57}\\.{3}`));
  });

  it('have files beyond the limits', () => {
    writeFileSync(join(dir, 'config.json'), ' '.repeat(1024 * 1024 + 1));
    expect(open).toThrow('config.json: is 1048577 bytes long, at most 1048576 are read');
  });

  it('are of an unknown architecture', () => {
    writeJson('config.json', { ...config, architectures: ['MambaForCausalLM'] });
    expect(open).toThrow(UnsupportedModelError);
    expect(open).toThrow(/config.json: architecture "MambaForCausalLM"/);
  });

  it('hold other tensors than config.json says', () => {
    writeJson('config.json', { ...config, num_hidden_layers: 2 });
    expect(open).toThrow(/tensor "model.layers.1.input_layernorm.weight" is missing \(and 8 more tensors do not fit\)/);
    writeJson('config.json', { ...config, intermediate_size: 13 });
    expect(open).toThrow(/"model.layers.0.mlp.gate_proj.weight" has shape \[12, 8\], config.json implies \[13, 8\]/);
    const tied = Object.fromEntries(Object.entries(tensors).filter(([name]) => name !== 'lm_head.weight'));
    writeSafetensors(join(dir, 'model.safetensors'), tied);
    writeJson('config.json', config);
    expect(open).toThrow(/tensor "lm_head.weight" is missing; check/);
    writeJson('config.json', { ...config, tie_word_embeddings: true });
    expect(open().config.tied).toBe(true);
  });

  it('hold tensors of other dtypes', () => {
    writeSafetensors(join(dir, 'model.safetensors'), { ...tensors, 'lm_head.weight': zeros('I16', 10, 8) });
    expect(open).toThrow('"lm_head.weight" is I16, only F32, F16 and BF16 are read');
    writeSafetensors(join(dir, 'model.safetensors'), { ...tensors, 'lm_head.weight': zeros('F16', 10, 8) });
    expect(open().config.dtype).toBe('f32');
  });
});
