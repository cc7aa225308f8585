import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Family, ModelConfig } from '../models/model-config.js';
import { parseModelConfig } from '../models/parse-config.js';
import { findPreset } from '../models/presets.js';
import { AbortedError, StorageError, UsageError } from '../util/errors.js';
import { openCheckpoint } from './directory.js';
import { readRowsF32 } from './read-rows.js';
import { writeSynthetic } from './synth.js';
import { synthTokenizer } from './synth-tokenizer.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kloop-synth-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const architectures: Record<Family, string> = {
  llama: 'LlamaForCausalLM',
  mistral: 'MistralForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
  gemma2: 'Gemma2ForCausalLM',
};
const tiny = (family: Family, dtype = 'bfloat16'): ModelConfig =>
  parseModelConfig(
    {
      architectures: [architectures[family]],
      hidden_size: 64,
      intermediate_size: 96,
      num_hidden_layers: 3,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 16,
      vocab_size: 300,
      max_position_embeddings: 128,
      torch_dtype: dtype,
    },
    'out',
  );
const out = () => join(dir, 'out');
const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

describe('writeSynthetic', () => {
  it.each(Object.keys(architectures) as Family[])(
    'writes a %s checkpoint that opens as what it was',
    async (family) => {
      const config = tiny(family);
      await writeSynthetic(config, out());
      const { weights, generation, config: opened } = openCheckpoint(out());
      expect(opened).toEqual(config);
      expect(generation).toEqual({ eos: [299], bos: 298, temperature: 0 });
      for (const name of weights.names()) readRowsF32(weights, name, 0, weights.describe(name).shape[0]!);
      const moments = (name: string) => {
        const values = weights.readF32(name, 0, weights.describe(name).shape[0]!);
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        return [mean, Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length)];
      };
      const [mean, std] = moments('model.layers.1.mlp.down_proj.weight');
      expect(mean).toBeCloseTo(0, 2);
      expect(std! * Math.sqrt(96)).toBeCloseTo(1, 1);
      expect(moments('model.norm.weight')[0]).toBeCloseTo(family === 'gemma2' ? 0 : 1, 1);
      weights.close();
    },
  );

  it('depends on the seed and the tensor name, and on nothing else', async () => {
    const digests = [];
    for (const [i, seed] of [1, 1, 2].entries()) {
      await writeSynthetic(tiny('llama'), join(dir, String(i)), { seed });
      digests.push(digest(join(dir, String(i), 'model.safetensors')));
    }
    expect(digests[0]).toBe(digests[1]);
    expect(digests[0]).not.toBe(digests[2]);
    const { weights } = openCheckpoint(join(dir, '0'));
    const read = (layer: number) => Buffer.from(weights.read(`model.layers.${layer}.mlp.up_proj.weight`, 0, 96));
    expect(read(0).equals(read(1))).toBe(false);
    weights.close();
  });

  it.each(['float32', 'float16'])('writes %s', async (dtype) => {
    const config = tiny('llama', dtype);
    await writeSynthetic(config, out(), { layers: 1 });
    const { weights, config: opened } = openCheckpoint(out());
    expect(opened).toMatchObject({ dtype: config.dtype, layers: 1, windows: [0] });
    weights.close();
  });

  it('repeats kinds of layers, and splits into shards', async () => {
    const config = { ...tiny('gemma2'), layers: 3, windows: [8, 0, 8] };
    const progress: number[] = [];
    const onProgress = (done: number, total: number) => progress.push(done / total);
    await writeSynthetic(config, out(), { layers: 5, shardBytes: 100_000, onProgress });
    const checkpoint = openCheckpoint(out());
    expect(checkpoint.config.windows).toEqual([8, 0, 8, 8, 0]);
    checkpoint.weights.close();
    const shards = readdirSync(out()).filter((name) => name.endsWith('.safetensors'));
    expect(shards.length).toBeGreaterThan(2);
    for (const [i, name] of shards.sort().entries()) {
      expect(name).toBe(`model-0000${i + 1}-of-0000${shards.length}.safetensors`);
      expect(statSync(join(out(), name)).size).toBeLessThan(110_000);
    }
    // The same values, however they are split.
    await writeSynthetic(config, join(dir, 'one'), { layers: 5 });
    const one = openCheckpoint(join(dir, 'one')).weights;
    const many = openCheckpoint(out()).weights;
    for (const name of one.names()) {
      const rows = one.describe(name).shape[0]!;
      expect(Buffer.from(many.read(name, 0, rows)).equals(one.read(name, 0, rows))).toBe(true);
    }
    one.close();
    many.close();
    expect(progress.at(-1)).toBe(1);
    expect([...progress].sort((a, b) => a - b)).toEqual(progress);
  });

  it('leaves nothing behind when it cannot finish', async () => {
    const config = tiny('llama');
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), {
      code: 'ENOSPC',
      syscall: 'write',
    });
    const failing = writeSynthetic(config, out(), {
      onProgress: () => {
        throw full;
      },
    });
    await expect(failing).rejects.toThrow(/out: no space left on the disk/);
    await expect(writeSynthetic(config, out(), { signal: AbortSignal.abort() })).rejects.toThrow(AbortedError);
    await expect(writeSynthetic(config, out(), { layers: 0 })).rejects.toThrow(UsageError);
    expect(readdirSync(dir)).toEqual([]);
    writeFileSync(join(dir, 'file'), '');
    await expect(writeSynthetic(config, join(dir, 'file', 'x'))).rejects.toThrow(StorageError);
    await expect(writeSynthetic(config, dir)).rejects.toThrow('exists and is not empty');
  });

  it('says how much room a model needs before it begins', async () => {
    const huge = findPreset('llama-3.1-405b')!.config;
    await expect(writeSynthetic(huge, out(), { layers: 1000 })).rejects.toThrow(/needs 6\.\d+ TB, \d.* are free/);
    expect(existsSync(out())).toBe(false);
  });
});

describe('the tokenizer', () => {
  it('loads, and encodes any text to bytes and back', () => {
    const { tokenizer, tokenizerConfig, bos } = synthTokenizer(1000, 128);
    const loaded: { encode(text: string): { ids: number[] }; decode(ids: number[], options: object): string } =
      // The package's type files do not resolve under NodeNext.
      new (Tokenizer as unknown as new (...json: object[]) => typeof loaded)(tokenizer, tokenizerConfig);
    const text = 'Grüße, world!\n\u{1F600}\u0000';
    const { ids } = loaded.encode(text);
    expect(ids[0]).toBe(bos);
    expect(ids).toHaveLength(1 + Buffer.byteLength(text));
    expect(loaded.decode(ids, { skip_special_tokens: true })).toBe(text);
  });

  it('has exactly the ids of the vocabulary, each once', () => {
    for (const vocab of [3, 100, 258, 259, 50_000]) {
      const { tokenizer, bos, eos } = synthTokenizer(vocab, 128);
      const table = (tokenizer['model'] as { vocab: Record<string, number> }).vocab;
      expect([...Object.values(table), bos, eos].sort((a, b) => a - b)).toEqual(
        Array.from({ length: vocab }, (_, i) => i),
      );
    }
    expect(() => synthTokenizer(2, 128)).toThrow(UsageError);
  });
});
