/**
 * Small models of every family with awkward sizes: widths that are no multiple of a vector, odd widths, one head, one
 * key/value head, a window shorter than the text, layers that alternate. Weights are random; what counts is that every
 * implementation computes the same from them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeSynthetic } from '../../src/checkpoint/synth.js';
import { openWeights, type Weights } from '../../src/checkpoint/weights.js';
import type { Limits } from '../../src/ir/program.js';
import type { ModelConfig } from '../../src/models/model-config.js';
import { parseModelConfig } from '../../src/models/parse-config.js';

type Fields = Readonly<Record<string, unknown>>;

/** Layers, hidden, ffn, heads, key/value heads, vocabulary. */
function sizes(
  ...[layers, hidden, ffn, heads, kvHeads, vocab]: [number, number, number, number, number, number]
): Fields {
  return {
    num_hidden_layers: layers,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    vocab_size: vocab,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    torch_dtype: 'float32',
  };
}

const llama3Scaling = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
};

const configs = {
  /** Three layers, grouped heads of 8, Llama 3.1's frequencies, a head of its own. */
  llama: {
    ...sizes(3, 48, 50, 6, 2, 331),
    architectures: ['LlamaForCausalLM'],
    rope_scaling: llama3Scaling,
    tie_word_embeddings: false,
  },
  /** Vectors that end within a cache line, one key/value head, tied. */
  'llama-tied': {
    ...sizes(2, 36, 40, 3, 1, 331),
    architectures: ['LlamaForCausalLM'],
    rope_scaling: { rope_type: 'linear', factor: 4 },
    tie_word_embeddings: true,
  },
  /** As many key/value heads as heads, of whole vectors; a window of five. */
  mistral: { ...sizes(2, 32, 64, 2, 2, 300), architectures: ['MistralForCausalLM'], sliding_window: 5 },
  /** One head of 80, biases. */
  qwen2: { ...sizes(2, 80, 48, 1, 1, 257), architectures: ['Qwen2ForCausalLM'], tie_word_embeddings: true },
  /** Norms per head, heads wider than the hidden size divided by them, odd widths. */
  qwen3: { ...sizes(2, 45, 51, 4, 2, 271), architectures: ['Qwen3ForCausalLM'], head_dim: 16 },
  /** Layers with a window and without it in turn, soft caps, norms after the branches. */
  gemma2: {
    ...sizes(4, 48, 56, 4, 2, 320),
    architectures: ['Gemma2ForCausalLM'],
    head_dim: 16,
    query_pre_attn_scalar: 24,
    sliding_window: 4,
    attn_logit_softcapping: 5,
    final_logit_softcapping: 3,
  },
} as const satisfies Record<string, Fields>;

export type ModelName = keyof typeof configs;
export const modelNames = Object.keys(configs) as ModelName[];

const dtypes = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' } as const;
export type StoredDtype = keyof typeof dtypes;

/** The configuration of a small model, with fields of its config.json replaced. */
export function modelConfig(name: ModelName, dtype: StoredDtype = 'f32', fields: Fields = {}): ModelConfig {
  return parseModelConfig({ ...configs[name], torch_dtype: dtypes[dtype], ...fields }, name);
}

/** Room for the tests' longest text in every slot. */
export const smallLimits: Limits = { rows: 8, samples: 4, slots: 4, context: 64 };

/** A place for checkpoints and caches that goes away in the end. */
export class Workspace {
  readonly directory = mkdtempSync(join(tmpdir(), 'kloop-models-'));
  private readonly opened: Weights[] = [];
  private count = 0;

  /** A new directory. */
  path(name: string): string {
    return join(this.directory, `${name}-${this.count++}`);
  }

  /** Where compiled kernels and packed weights of this workspace are shared. */
  get cacheDir(): string {
    return join(this.directory, 'cache');
  }

  /** Writes random weights for a configuration, and opens them. */
  async weights(config: ModelConfig, seed = 1): Promise<Weights> {
    const directory = this.path(config.name);
    await writeSynthetic(config, directory, { seed });
    const weights = openWeights(directory);
    this.opened.push(weights);
    return weights;
  }

  remove(): void {
    for (const weights of this.opened) weights.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
