/**
 * Published shapes by name, for `explain`, `simulate`, `synth` and benchmarks without a download. The numbers are those
 * of the `config.json` in the Hub repository given as `source`; tests compare parameter counts with the published totals.
 */
import { families } from './families/index.js';
import type { Family, ModelConfig } from './model-config.js';
import { parseModelConfig } from './parse-config.js';
import { defined } from '../util/assert.js';

export interface Preset {
  readonly name: string;
  readonly description: string;
  /** The repository whose config.json the numbers are from. */
  readonly source: string;
  readonly config: ModelConfig;
}

/** Layers, hidden, ffn, heads, key-value heads, vocabulary, context. */
type Sizes = readonly [number, number, number, number, number, number, number];

function preset(
  name: string,
  source: string,
  description: string,
  family: Family,
  sizes: Sizes,
  fields: Record<string, unknown>,
): Preset {
  const [layers, hidden, ffn, heads, kvHeads, vocab, context] = sizes;
  const architecture = defined(
    families.find((candidate) => candidate.family === family),
    `family ${family}`,
  ).architecture;
  const json = {
    architectures: [architecture],
    num_hidden_layers: layers,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    vocab_size: vocab,
    max_position_embeddings: context,
    torch_dtype: 'bfloat16',
    ...fields,
  };
  return { name, source, description, config: parseModelConfig(json, name) };
}

function llama2(size: string, sizes: Sizes): Preset {
  const fields = { rms_norm_eps: 1e-5, torch_dtype: 'float16' };
  const attention = sizes[3] === sizes[4] ? 'multi-head' : 'grouped-query';
  const description = `Llama 2, ${attention} attention`;
  return preset(`llama-2-${size}`, `meta-llama/Llama-2-${size}-hf`, description, 'llama', sizes, fields);
}

function llama3(version: '3.1' | '3.2', size: string, sizes: Sizes): Preset {
  const small = version === '3.2';
  const fields = {
    rms_norm_eps: 1e-5,
    rope_theta: 500_000,
    rope_scaling: {
      rope_type: 'llama3',
      factor: small ? 32 : 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    },
    tie_word_embeddings: small,
  };
  const source = `meta-llama/Llama-${version}-${size.toUpperCase()}`;
  const description = `Llama ${version}, grouped-query attention${small ? ', tied embeddings' : ''}`;
  return preset(`llama-${version}-${size}`, source, description, 'llama', sizes, fields);
}

function qwen25(size: string, sizes: Sizes, eps: number, tied: boolean): Preset {
  const fields = { rms_norm_eps: eps, rope_theta: 1_000_000, tie_word_embeddings: tied };
  const source = `Qwen/Qwen2.5-${size.toUpperCase()}`;
  return preset(`qwen2.5-${size}`, source, 'Qwen2.5, biases on Q, K and V', 'qwen2', sizes, fields);
}

function qwen3(size: string, sizes: Sizes, tied: boolean): Preset {
  const fields = { head_dim: 128, rms_norm_eps: 1e-6, rope_theta: 1_000_000, tie_word_embeddings: tied };
  const source = `Qwen/Qwen3-${size.toUpperCase()}`;
  return preset(`qwen3-${size}`, source, 'Qwen3, norms on queries and keys', 'qwen3', sizes, fields);
}

function gemma2(size: string, sizes: Sizes): Preset {
  const fields = {
    head_dim: 256,
    query_pre_attn_scalar: 256,
    sliding_window: 4096,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  };
  const description = 'Gemma 2, local and global attention alternate';
  return preset(`gemma-2-${size}`, `google/gemma-2-${size}-it`, description, 'gemma2', sizes, fields);
}

function smollm2(size: string, sizes: Sizes, theta: number): Preset {
  const fields = { rms_norm_eps: 1e-5, rope_theta: theta, tie_word_embeddings: true };
  const source = `HuggingFaceTB/SmolLM2-${size.toUpperCase()}`;
  return preset(`smollm2-${size}`, source, 'SmolLM2, Llama architecture, tied embeddings', 'llama', sizes, fields);
}

/** All presets, by family and size. */
export const presets: readonly Preset[] = [
  llama2('7b', [32, 4096, 11_008, 32, 32, 32_000, 4096]),
  llama2('13b', [40, 5120, 13_824, 40, 40, 32_000, 4096]),
  llama2('70b', [80, 8192, 28_672, 64, 8, 32_000, 4096]),
  llama3('3.1', '8b', [32, 4096, 14_336, 32, 8, 128_256, 131_072]),
  llama3('3.1', '70b', [80, 8192, 28_672, 64, 8, 128_256, 131_072]),
  llama3('3.1', '405b', [126, 16_384, 53_248, 128, 8, 128_256, 131_072]),
  llama3('3.2', '1b', [16, 2048, 8192, 32, 8, 128_256, 131_072]),
  llama3('3.2', '3b', [28, 3072, 8192, 24, 8, 128_256, 131_072]),
  preset(
    'mistral-7b',
    'mistralai/Mistral-7B-v0.1',
    'Mistral, every layer slides over 4096 positions',
    'mistral',
    [32, 4096, 14_336, 32, 8, 32_000, 32_768],
    { sliding_window: 4096, rms_norm_eps: 1e-5, rope_theta: 10_000 },
  ),
  qwen25('0.5b', [24, 896, 4864, 14, 2, 151_936, 32_768], 1e-6, true),
  qwen25('7b', [28, 3584, 18_944, 28, 4, 152_064, 131_072], 1e-6, false),
  qwen25('72b', [80, 8192, 29_568, 64, 8, 152_064, 131_072], 1e-5, false),
  qwen3('0.6b', [28, 1024, 3072, 16, 8, 151_936, 40_960], true),
  qwen3('8b', [36, 4096, 12_288, 32, 8, 151_936, 40_960], false),
  qwen3('32b', [64, 5120, 25_600, 64, 8, 151_936, 40_960], false),
  gemma2('2b', [26, 2304, 9216, 8, 4, 256_000, 8192]),
  gemma2('9b', [42, 3584, 14_336, 16, 8, 256_000, 8192]),
  smollm2('135m', [30, 576, 1536, 9, 3, 49_152, 8192], 100_000),
  smollm2('360m', [32, 960, 2560, 15, 5, 49_152, 8192], 100_000),
  smollm2('1.7b', [24, 2048, 8192, 32, 32, 49_152, 8192], 130_000),
  preset(
    'tinystories-15m',
    'karpathy/tinyllamas',
    'TinyStories size, multi-head attention, tied embeddings',
    'llama',
    [6, 288, 768, 6, 6, 32_000, 256],
    { rms_norm_eps: 1e-5, rope_theta: 10_000, tie_word_embeddings: true, torch_dtype: 'float32' },
  ),
];

/** The preset of that name (case does not matter), or undefined. */
export function findPreset(name: string): Preset | undefined {
  return presets.find((candidate) => candidate.name === name.toLowerCase());
}
