import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { ModelConfig } from '../../models/model-config.js';
import { parseModelConfig } from '../../models/parse-config.js';
import { expectedTensors } from '../../models/tensors.js';
import { AbortedError, CheckpointError, UnsupportedModelError } from '../../util/errors.js';
import { dequantize } from '../dequantize.js';
import type { Weights } from '../weights.js';
import type { GgufFormat } from './format.js';
import type { GgufSource } from './writer.js';
import { writeGguf } from './writer.js';

const directory = mkdtempSync(join(tmpdir(), 'kloop-gguf-'));
afterAll(() => rmSync(directory, { recursive: true }));

const sizes = {
  num_hidden_layers: 2,
  hidden_size: 32,
  intermediate_size: 64,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 40,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  torch_dtype: 'float32',
};

function configOf(architecture: string, fields: object = {}): ModelConfig {
  return parseModelConfig({ architectures: [`${architecture}ForCausalLM`], ...sizes, ...fields }, 'tiny');
}

/** Tensor number t has the values t + i/1024 for element i. */
function countingWeights(config: ModelConfig, spoil?: string): Weights {
  const tensors = expectedTensors(config);
  const find = (name: string) => tensors.findIndex((tensor) => tensor.name === name);
  const readF32 = (name: string, firstRow: number, rows: number): Float32Array => {
    const index = find(name);
    const width = tensors[index]!.shape[1] ?? 1;
    const values = Float32Array.from({ length: rows * width }, (_, i) => index + (firstRow * width + i) / 1024);
    if (name === spoil) values[5] = NaN;
    return values;
  };
  return {
    path: 'memory',
    has: (name) => find(name) >= 0,
    describe: (name) => ({ name, dtype: 'f32', shape: tensors[find(name)]!.shape }),
    read: (...args) => new Uint8Array(readF32(...args).buffer),
    readF32,
    names: () => tensors.map(({ name }) => name),
    fingerprint: 'none',
    close: () => undefined,
  };
}

interface Read {
  readonly metadata: ReadonlyMap<string, unknown>;
  readonly tensors: ReadonlyMap<string, { dims: number[]; type: number; bytes: Buffer }>;
}

/** A reader of its own, straight from the format's description. */
function readGguf(file: string): Read {
  const bytes = readFileSync(file);
  let at = 0;
  const u32 = () => bytes.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(bytes.readBigUInt64LE((at += 8) - 8));
  const text = () => {
    const length = u64();
    return bytes.toString('utf8', at, (at += length));
  };
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return bytes.readInt32LE((at += 4) - 4);
    if (type === 6) return bytes.readFloatLE((at += 4) - 4);
    if (type === 7) return bytes.readUInt8((at += 1) - 1) === 1;
    if (type === 8) return text();
    expect(type).toBe(9);
    const inner = u32();
    return Array.from({ length: u64() }, () => value(inner));
  };
  expect(bytes.toString('latin1', 0, 4)).toBe('GGUF');
  at = 4;
  expect(u32()).toBe(3);
  const [tensorCount, keyCount] = [u64(), u64()];
  const metadata = new Map(Array.from({ length: keyCount }, () => [text(), value(u32())] as const));
  const infos = Array.from({ length: tensorCount }, () => {
    const name = text();
    const dims = Array.from({ length: u32() }, u64);
    return { name, dims, type: u32(), offset: u64() };
  });
  const data = Math.ceil(at / 32) * 32;
  const tensors = new Map<string, { dims: number[]; type: number; bytes: Buffer }>();
  infos.forEach(({ name, dims, type, offset }, i) => {
    expect(offset % 32).toBe(0);
    const end = infos[i + 1]?.offset ?? bytes.length - data;
    tensors.set(name, { dims, type, bytes: bytes.subarray(data + offset, data + end) });
  });
  return { metadata, tensors };
}

async function written(source: GgufSource, quant: GgufFormat): Promise<Read> {
  const file = join(directory, 'model.gguf');
  await writeGguf(source, file, { quant });
  return readGguf(file);
}

const floats = (read: Read, name: string): number[] => {
  const { bytes, dims } = read.tensors.get(name)!;
  const count = dims.reduce((product, size) => product * size, 1);
  return Array.from({ length: count }, (_, i) => bytes.readFloatLE(4 * i));
};

describe('llama', () => {
  const scaling = {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  };
  const config = configOf('Llama', { rope_scaling: scaling });
  const source = { config, weights: countingWeights(config) };

  test('metadata is what llama.cpp asks for', async () => {
    const { metadata } = await written(source, 'q4_0');
    expect(Object.fromEntries([...metadata].filter(([key]) => !key.startsWith('tokenizer.')))).toEqual({
      'general.architecture': 'llama',
      'general.type': 'model',
      'general.name': 'tiny',
      'general.file_type': 2,
      'general.quantization_version': 2,
      'llama.vocab_size': 40,
      'llama.block_count': 2,
      'llama.context_length': 128,
      'llama.embedding_length': 32,
      'llama.feed_forward_length': 64,
      'llama.attention.head_count': 4,
      'llama.attention.head_count_kv': 2,
      'llama.attention.key_length': 8,
      'llama.attention.value_length': 8,
      'llama.attention.layer_norm_rms_epsilon': Math.fround(1e-5),
      'llama.rope.dimension_count': 8,
      'llama.rope.freq_base': 10_000,
    });
    expect(metadata.get('tokenizer.ggml.tokens')).toHaveLength(40);
  });

  test('rows of Q and K stand in pairs, all else as it was', async () => {
    const read = await written(source, 'f32');
    const order = [0, 4, 1, 5, 2, 6, 3, 7];
    const rows = (count: number) =>
      Array.from({ length: count }, (_, row) => row - (row % 8) + order[row % 8]!).flatMap((row) =>
        Array.from({ length: 32 }, (_, i) => row * 32 + i),
      );
    const index = (name: string) => expectedTensors(config).findIndex((tensor) => tensor.name === name);
    const q = index('model.layers.1.self_attn.q_proj.weight');
    expect(floats(read, 'blk.1.attn_q.weight')).toEqual(rows(32).map((i) => q + i / 1024));
    const k = index('model.layers.0.self_attn.k_proj.weight');
    expect(floats(read, 'blk.0.attn_k.weight')).toEqual(rows(16).map((i) => k + i / 1024));
    const v = index('model.layers.0.self_attn.v_proj.weight');
    expect(floats(read, 'blk.0.attn_v.weight').slice(0, 2)).toEqual([v, v + 1 / 1024]);
    expect(read.tensors.get('blk.0.ffn_down.weight')!.dims).toEqual([64, 32]);
    expect([...read.tensors.keys()]).toHaveLength(2 * 9 + 4);
  });

  test('llama3 scaling divides frequencies', async () => {
    const divisors = floats(await written(source, 'f32'), 'rope_freqs.weight');
    // Over 32 positions, the frequencies 1, 0.1, 0.01, 0.001 make 5.09 (kept), 0.51, 0.05, 0.005 turns (divided by 8).
    expect(divisors).toEqual([1, 8, 8, 8]);
  });

  test('matrices are quantized, norms are not, and rows of no whole blocks stay half precision', async () => {
    const narrow = configOf('Llama', { intermediate_size: 72 });
    const { tensors } = await written({ config: narrow, weights: countingWeights(narrow) }, 'q8_0');
    expect(tensors.get('token_embd.weight')!.type).toBe(8);
    expect(tensors.get('output.weight')!.type).toBe(8);
    expect(tensors.get('blk.0.ffn_up.weight')!.type).toBe(8);
    expect(tensors.get('blk.0.ffn_down.weight')!.type).toBe(1);
    expect(tensors.get('blk.0.attn_norm.weight')!.type).toBe(0);
    const row = new Float32Array(32);
    dequantize('q8_0', tensors.get('output.weight')!.bytes.subarray(0, 34), row);
    const index = expectedTensors(narrow).length - 1;
    row.forEach((value, i) => expect(value).toBeCloseTo(index + i / 1024, 0));
  });

  test.each([
    ['bf16', 30, 0x4000],
    ['f16', 1, 0x4000],
  ] as const)('%s', async (quant, type, two) => {
    const { tensors } = await written(source, quant);
    const { type: found, bytes } = tensors.get('blk.0.attn_q.weight')!;
    // The third tensor of the list: its first value is 2.
    expect([found, bytes.readUInt16LE(0)]).toEqual([type, two]);
  });

  test('reports progress to the end', async () => {
    const seen: [number, number][] = [];
    const file = join(directory, 'progress.gguf');
    await writeGguf(source, file, { quant: 'f32', onProgress: (done, total) => seen.push([done, total]) });
    const [done, total] = seen.at(-1)!;
    expect(done).toBe(total);
  });
});

test('stops when it is asked to, and leaves no file', async () => {
  const config = configOf('Llama');
  const controller = new AbortController();
  const writing = writeGguf({ config, weights: countingWeights(config) }, join(directory, 'stopped', 'model.gguf'), {
    quant: 'f32',
    onProgress: () => controller.abort(),
    signal: controller.signal,
  });
  await expect(writing).rejects.toThrow(AbortedError);
  expect(readdirSync(join(directory, 'stopped'))).toEqual([]);
});

test('gemma2: norms become w + 1, scores get the scale of the config', async () => {
  const fields = { head_dim: 16, query_pre_attn_scalar: 64, sliding_window: 8 };
  const config = configOf('Gemma2', fields);
  const read = await written({ config, weights: countingWeights(config) }, 'f32');
  expect(read.metadata.get('gemma2.attn_logit_softcapping')).toBe(50);
  expect(read.metadata.get('gemma2.final_logit_softcapping')).toBe(30);
  expect(read.metadata.get('gemma2.attention.sliding_window')).toBe(8);
  const index = (name: string) => expectedTensors(config).findIndex((tensor) => tensor.name === name);
  for (const [ours, theirs] of [
    ['input_layernorm', 'attn_norm'],
    ['post_attention_layernorm', 'post_attention_norm'],
    ['pre_feedforward_layernorm', 'ffn_norm'],
    ['post_feedforward_layernorm', 'post_ffw_norm'],
  ] as const) {
    expect(floats(read, `blk.1.${theirs}.weight`)[0]).toBe(index(`model.layers.1.${ours}.weight`) + 1);
  }
  // llama.cpp scales by 1/sqrt(16), the config says 1/sqrt(64). Rows of gemma2 keep their order.
  const q = index('model.layers.0.self_attn.q_proj.weight');
  expect(floats(read, 'blk.0.attn_q.weight').slice(0, 2)).toEqual([q / 2, (q + 1 / 1024) / 2]);
});

test('mistral is llama up to its window; qwen2 keeps rows and has biases', async () => {
  const mistral = configOf('Mistral', { sliding_window: 16 });
  const { metadata } = await written({ config: mistral, weights: countingWeights(mistral) }, 'f32');
  expect([metadata.get('general.architecture'), metadata.get('llama.context_length')]).toEqual(['llama', 16]);
  const qwen2 = configOf('Qwen2', { tie_word_embeddings: true, rope_scaling: { rope_type: 'linear', factor: 2 } });
  const read = await written({ config: qwen2, weights: countingWeights(qwen2) }, 'f32');
  expect(read.metadata.get('qwen2.rope.scaling.factor')).toBe(2);
  expect(floats(read, 'blk.0.attn_q.bias').slice(0, 2)).toEqual([3, 3 + 1 / 1024]);
  expect(read.tensors.has('output.weight')).toBe(false);
});

describe('tokenizers', () => {
  const config = configOf('Llama', { vocab_size: 12, tie_word_embeddings: true });
  const weights = countingWeights(config);
  const file = join(directory, 'tokenizer.json');
  const tokenize = async (json: object) => {
    writeFileSync(file, JSON.stringify(json));
    const source = { config, weights, tokenizerFile: file, generation: { bos: 0, eos: [1, 2] } };
    const { metadata } = await written(source, 'f32');
    return (key: string) => metadata.get(`tokenizer.ggml.${key}`);
  };
  const added = [
    { id: 0, content: '<s>', special: true },
    { id: 9, content: '<tool>', special: false },
  ];
  const template = {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  };

  test('byte-level BPE', async () => {
    const get = await tokenize({
      added_tokens: added,
      pre_tokenizer: { type: 'ByteLevel', use_regex: true },
      post_processor: { type: 'Sequence', processors: [{ type: 'ByteLevel' }, template] },
      decoder: { type: 'ByteLevel' },
      // Id 20 is beyond the embedding; 5 to 8, 10 and 11 have no token.
      model: { type: 'BPE', vocab: { a: 1, b: 2, ab: 3, Ġab: 4, far: 20 }, merges: ['a b', ['Ġ', 'ab']] },
    });
    expect(get('model')).toBe('gpt2');
    expect(get('pre')).toBe('gpt-2');
    const tokens = [
      '<s>',
      'a',
      'b',
      'ab',
      'Ġab',
      '[PAD5]',
      '[PAD6]',
      '[PAD7]',
      '[PAD8]',
      '<tool>',
      '[PAD10]',
      '[PAD11]',
    ];
    expect(get('tokens')).toEqual(tokens);
    expect(get('token_type')).toEqual([3, 1, 1, 1, 1, 5, 5, 5, 5, 4, 5, 5]);
    expect(get('merges')).toEqual(['a b', 'Ġ ab']);
    expect([get('bos_token_id'), get('eos_token_id'), get('add_bos_token')]).toEqual([0, 1, true]);
    expect(get('scores')).toBeUndefined();
  });

  test('BPE over characters', async () => {
    const get = await tokenize({
      added_tokens: [...added, { id: 8, content: '<unk>', special: true }],
      normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }] },
      decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }] },
      model: {
        type: 'BPE',
        byte_fallback: true,
        unk_token: '<unk>',
        vocab: { '<unk>': 8, '<0x41>': 1, '▁': 2, a: 3, '▁a': 4, aa: 5 },
        merges: ['▁ a', 'a a'],
      },
    });
    expect(get('model')).toBe('llama');
    expect((get('token_type') as number[]).slice(0, 10)).toEqual([3, 6, 1, 1, 1, 1, 5, 5, 2, 4]);
    // The earlier merge has the higher score.
    expect((get('scores') as number[]).slice(3, 6)).toEqual([-1e9, 0, -1]);
    expect([get('unknown_token_id'), get('add_space_prefix'), get('add_bos_token')]).toEqual([8, true, false]);
  });

  test('a broken one is refused, with its name', async () => {
    await expect(tokenize({ model: { type: 'BPE', vocab: { a: -1 } } })).rejects.toThrow(CheckpointError);
    await expect(tokenize({ model: { type: 'Unigram', vocab: [['a', -1]] } })).rejects.toThrow(UnsupportedModelError);
  });
});

test('what llama.cpp computes otherwise is refused', async () => {
  const scaling = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  for (const config of [
    configOf('Qwen2', { rope_scaling: { ...scaling, original_max_position_embeddings: 32 } }),
    configOf('Gemma2', { head_dim: 16, attn_logit_softcapping: null }),
    configOf('Gemma2', { head_dim: 16, sliding_window: null }),
  ]) {
    const writing = writeGguf({ config, weights: countingWeights(config) }, join(directory, 'no.gguf'), {
      quant: 'f32',
    });
    await expect(writing).rejects.toThrow(UnsupportedModelError);
  }
});

test('a weight that is not finite is named, and no file is left', async () => {
  const config = configOf('Llama');
  const weights = countingWeights(config, 'model.layers.1.mlp.up_proj.weight');
  const writing = writeGguf({ config, weights }, join(directory, 'broken', 'nan.gguf'), { quant: 'q8_0' });
  await expect(writing).rejects.toThrow('"model.layers.1.mlp.up_proj.weight" is not finite at element 5');
  expect(readdirSync(join(directory, 'broken'))).toEqual([]);
});
