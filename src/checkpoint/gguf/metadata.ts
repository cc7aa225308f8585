/**
 * A ModelConfig as GGUF metadata, under the keys that llama.cpp's convert_hf_to_gguf.py writes and llama.cpp reads.
 * Mistral is `llama` there. What llama.cpp would compute differently from us is refused or, where a part of the model
 * stays right, cut to that part (a sliding window becomes the context's length).
 */
import { UnsupportedModelError } from '../../util/errors.js';
import type { ModelConfig } from '../../models/model-config.js';
import { ropeFrequencies } from '../../models/rope.js';
import type { GgufFormat, GgufMetadata, GgufValue } from './format.js';
import { ggufFormats } from './format.js';

export type GgufArchitecture = 'llama' | 'qwen2' | 'qwen3' | 'gemma2';

/** The name llama.cpp knows the family by. */
export function ggufArchitecture(config: ModelConfig): GgufArchitecture {
  return config.family === 'mistral' ? 'llama' : config.family;
}

/** Metadata of the model, without its tokenizer. Throws UnsupportedModelError for what llama.cpp cannot express. */
export function modelMetadata(config: ModelConfig, format: GgufFormat): GgufMetadata {
  const architecture = ggufArchitecture(config);
  refuseInexpressible(config, architecture);
  const u32 = (key: string, value: number) => [`${architecture}.${key}`, { kind: 'u32', value }] as const;
  const f32 = (key: string, value: number) => [`${architecture}.${key}`, { kind: 'f32', value }] as const;
  const entries: (readonly [string, GgufValue])[] = [
    ['general.architecture', { kind: 'string', value: architecture }],
    ['general.type', { kind: 'string', value: 'model' }],
    ['general.name', { kind: 'string', value: config.name }],
    ['general.file_type', { kind: 'u32', value: ggufFormats[format].fileType }],
    ['general.quantization_version', { kind: 'u32', value: 2 }],
    u32('vocab_size', config.vocab),
    u32('block_count', config.layers),
    u32('context_length', ggufContext(config)),
    u32('embedding_length', config.hidden),
    u32('feed_forward_length', config.ffn),
    u32('attention.head_count', config.heads),
    u32('attention.head_count_kv', config.kvHeads),
    u32('attention.key_length', config.headDim),
    u32('attention.value_length', config.headDim),
    f32('attention.layer_norm_rms_epsilon', config.normEps),
    u32('rope.dimension_count', config.headDim),
    f32('rope.freq_base', config.rope.theta),
  ];
  const { scaling } = config.rope;
  if (scaling.kind === 'linear') {
    entries.push([`${architecture}.rope.scaling.type`, { kind: 'string', value: 'linear' }]);
    entries.push(f32('rope.scaling.factor', scaling.factor));
  }
  if (architecture === 'gemma2') {
    entries.push(f32('attn_logit_softcapping', config.attentionSoftcap));
    entries.push(f32('final_logit_softcapping', config.logitSoftcap));
    entries.push(u32('attention.sliding_window', config.windows[0] ?? 0));
  }
  return entries;
}

/**
 * Llama 3 scaling is not metadata but a tensor, `rope_freqs.weight` (headDim / 2): what each frequency is divided by.
 * Undefined for other scalings.
 */
export function ropeDivisors(config: ModelConfig): Float32Array | undefined {
  const { scaling } = config.rope;
  if (scaling.kind === 'divisors') return Float32Array.from(scaling.values);
  if (scaling.kind !== 'llama3') return undefined;
  const scaled = ropeFrequencies(config.rope, config.headDim);
  const plain = ropeFrequencies({ theta: config.rope.theta, scaling: { kind: 'none' } }, config.headDim);
  return Float32Array.from(plain, (frequency, i) => frequency / scaled[i]!);
}

/**
 * llama.cpp fixes the scale of attention scores: 1/sqrt(headDim), and 1/sqrt(hidden/heads) for the 46 layers of
 * Gemma 2 27B. Another scale is had by multiplying the query weights with this factor (1 for every published model).
 */
export function queryFactor(config: ModelConfig): number {
  const width = config.family === 'gemma2' && config.layers === 46 ? config.hidden / config.heads : config.headDim;
  const factor = config.attentionScale * Math.sqrt(width);
  return Math.abs(factor - 1) < 1e-9 ? 1 : factor;
}

/** Without a window of its own, llama.cpp computes full attention: right up to the length of the smallest window. */
export function ggufContext(config: ModelConfig): number {
  if (config.family === 'gemma2') return config.context;
  return Math.min(config.context, ...config.windows.filter((window) => window > 0));
}

function refuseInexpressible(config: ModelConfig, architecture: GgufArchitecture): void {
  const refuse = (what: string): never => {
    throw new UnsupportedModelError(`${config.name}: llama.cpp has no ${what} for ${architecture} models`);
  };
  if (config.rope.scaling.kind === 'llama3' && architecture !== 'llama') refuse('llama3 rope scaling');
  if (architecture !== 'gemma2') return;
  if (config.attentionSoftcap === 0 || config.logitSoftcap === 0) refuse('way to switch off soft-capping');
  const window = config.windows[0] ?? 0;
  const alternates = config.windows.every((value, layer) => value === (layer % 2 === 0 ? window : 0));
  if (window === 0 || !alternates) refuse('layers that do not alternate between a window and full attention');
  if (!config.tied) refuse('LM head of its own');
}
