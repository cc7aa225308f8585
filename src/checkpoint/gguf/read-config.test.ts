/** Metadata as a ModelConfig: what llama.cpp reads out of the same keys, and what is refused. */
import { describe, expect, test } from 'vitest';
import { CheckpointError, UnsupportedModelError } from '../../util/errors.js';
import type { MetadataValue } from './header-reader.js';
import type { GgufFile, GgufTensor } from './parse.js';
import { readModelConfig } from './read-config.js';

const llama: Readonly<Record<string, MetadataValue>> = {
  'general.architecture': 'llama',
  'llama.block_count': 2,
  'llama.embedding_length': 64,
  'llama.feed_forward_length': 128,
  'llama.attention.head_count': 4,
  'llama.context_length': 128,
  'llama.attention.layer_norm_rms_epsilon': 1e-5,
};

/** The config of these keys; divisors of frequencies where there are some. */
function read(keys: Readonly<Record<string, MetadataValue>>, divisors?: Float32Array) {
  const embedding: GgufTensor = { name: 'token_embd.weight', dtype: 'f32', shape: [256, 64], offset: 0, bytes: 0 };
  const file = {
    path: 'm.gguf',
    metadata: new Map(Object.entries({ ...llama, ...keys })),
    tensors: new Map([[embedding.name, embedding]]),
  };
  return readModelConfig(file as unknown as GgufFile, 'm', divisors);
}

test('what the file does not say is as llama.cpp has it', () => {
  expect(read({})).toMatchObject({
    ...{ family: 'llama', layers: 2, hidden: 64, ffn: 128, heads: 4, kvHeads: 4, headDim: 16, vocab: 256 },
    ...{ tied: true, qkvBias: false, attentionScale: 1 / 4, windows: [0, 0] },
    rope: { theta: 10_000, scaling: { kind: 'none' } },
  });
});

describe('scaling of RoPE', () => {
  const scaling = (keys: Readonly<Record<string, MetadataValue>>, divisors?: Float32Array) =>
    read(Object.fromEntries(Object.entries(keys).map(([key, value]) => [`llama.rope.${key}`, value])), divisors).rope
      .scaling;
  const divisors = new Float32Array(8).fill(2);

  test('is linear where the file has a factor and names no kind, as older files do', () => {
    expect(scaling({ scale_linear: 4 })).toEqual({ kind: 'linear', factor: 4 });
    expect(scaling({ 'scaling.factor': 8, scale_linear: 4 })).toEqual({ kind: 'linear', factor: 8 });
    expect(scaling({ 'scaling.type': 'linear', 'scaling.factor': 2 })).toEqual({ kind: 'linear', factor: 2 });
    expect(scaling({ 'scaling.type': 'none', 'scaling.factor': 2 })).toEqual({ kind: 'none' });
    expect(scaling({ scale_linear: 1 })).toEqual({ kind: 'none' });
  });

  test('is a division of frequencies where the file has a tensor for it, and not two things at once', () => {
    expect(scaling({}, divisors)).toEqual({ kind: 'divisors', values: [...divisors] });
    expect(scaling({ 'scaling.type': 'none', scale_linear: 4 }, divisors).kind).toBe('divisors');
    expect(() => scaling({ scale_linear: 4 }, divisors)).toThrow(/linear rope scaling together with "rope_freqs/);
    expect(() => scaling({}, divisors.slice(1))).toThrow(CheckpointError);
  });

  test.each(['yarn', 'longrope'])('%s is refused by name', (kind) => {
    expect(() => scaling({ 'scaling.type': kind, 'scaling.factor': 4 })).toThrow(UnsupportedModelError);
    expect(() => scaling({ 'scaling.type': kind })).toThrow(`rope scaling "${kind}"`);
  });
});

test.each<[Readonly<Record<string, MetadataValue>>, RegExp]>([
  [{ 'general.architecture': 'mamba' }, /architecture "mamba" is not supported; known are llama, qwen2/],
  [{ 'split.count': 3 }, /one of 3 parts/],
  [{ 'llama.expert_count': 8 }, /mixture of experts \(llama.expert_count 8\)/],
  [{ 'llama.rope.dimension_count': 8 }, /partial rotary embeddings/],
  [{ 'llama.attention.value_length': 8 }, /values of another size than keys/],
  [{ 'llama.attention.head_count_kv': Uint32Array.of(2, 4) }, /head_count_kv that differs from layer to layer/],
  [{ 'llama.attention.head_count_kv': 3 }, /4 heads are not a multiple of 3/],
  [{ 'llama.block_count': 2 ** 40 }, /block_count" is 1099511627776, must be a whole number from 1 to 1000/],
  [{ 'llama.rope.freq_base': Infinity }, /freq_base" is Infinity, must be a number above 0/],
  [{ 'llama.embedding_length': 66 }, /key_length" is 16.5, must be a whole number/],
])('%j is refused', (keys, message) => {
  expect(() => read(keys)).toThrow(message);
});
