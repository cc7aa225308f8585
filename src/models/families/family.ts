/**
 * What a family of models is: its Hugging Face names, how its config becomes ours, and back. The common part (sizes,
 * RoPE, norms, precision) is read once here in the Llama form; a family file says only what differs.
 */
import { checkedProduct, show } from '../../util/checked.js';
import type { ConfigSource, HfConfig } from '../hf-config.js';
import { invalid, unsupported } from '../hf-config.js';
import type { Family, ModelConfig } from '../model-config.js';
import { readRope } from '../rope-config.js';

export interface ModelFamily {
  readonly family: Family;
  /** `architectures[0]` of its configs. */
  readonly architecture: string;
  /** `model_type` of its configs, used where `architectures` is absent. */
  readonly modelType: string;
  read(raw: HfConfig, source: ConfigSource): ModelConfig;
  /** The fields of a config.json that this family adds to the common ones. */
  write(config: ModelConfig): Record<string, unknown>;
}

/** What transformers assumes for a family where config.json is silent. */
export interface FamilyDefaults {
  readonly kvHeads?: number;
  readonly headDim?: number;
  readonly context: number;
  readonly tied: boolean;
}

/** The config read as plain Llama: full attention, SwiGLU, no biases, no extra norms. Families override fields of it. */
export function readCommon(raw: HfConfig, source: ConfigSource, family: Family, defaults: FamilyDefaults): ModelConfig {
  refuseExtras(raw, source);
  const heads = raw.num_attention_heads;
  // An explicit null means "as many as query heads" everywhere; only absence falls back to the family's default.
  const kvHeads = raw.num_key_value_heads ?? (raw.num_key_value_heads === null ? heads : (defaults.kvHeads ?? heads));
  if (heads % kvHeads !== 0) {
    throw invalid(source, `num_attention_heads ${heads} is not a multiple of num_key_value_heads ${kvHeads}`);
  }
  const headDim = raw.head_dim ?? defaults.headDim ?? raw.hidden_size / heads;
  if (!Number.isInteger(headDim) || headDim % 2 !== 0 || headDim < 2 || headDim > 1024) {
    const from =
      raw.head_dim == null && defaults.headDim === undefined
        ? ` (hidden_size ${raw.hidden_size} / ${heads} heads)`
        : '';
    throw invalid(source, `head_dim is ${headDim}${from}, must be an even whole number from 2 to 1024`);
  }
  const layers = raw.num_hidden_layers;
  const context = raw.max_position_embeddings ?? defaults.context;
  if (checkedProduct([8, layers, context, kvHeads, headDim]) === undefined) {
    throw invalid(
      source,
      `the key-value cache of ${layers} layers, ${context} positions, ${kvHeads} heads of ${headDim} is too large to address`,
    );
  }
  return {
    name: source.name,
    family,
    layers,
    hidden: raw.hidden_size,
    ffn: raw.intermediate_size,
    heads,
    kvHeads,
    headDim,
    vocab: raw.vocab_size,
    context,
    normEps: raw.rms_norm_eps ?? 1e-6,
    rope: readRope(raw, source),
    tied: raw.tie_word_embeddings ?? defaults.tied,
    qkvBias: false,
    qkNorm: false,
    postNorms: false,
    normOffset: 0,
    activation: 'silu',
    embeddingScale: 1,
    attentionScale: 1 / Math.sqrt(headDim),
    attentionSoftcap: 0,
    logitSoftcap: 0,
    windows: new Array<number>(layers).fill(0),
    dtype: readDtype(raw, source),
  };
}

/** Refuses by name what no family here computes. */
function refuseExtras(raw: HfConfig, source: ConfigSource): void {
  for (const field of ['num_local_experts', 'num_experts', 'n_routed_experts']) {
    if (typeof raw[field] === 'number' && raw[field] > 1) {
      throw unsupported(source, `mixture of experts (${field} ${raw[field]})`);
    }
  }
  if (raw['quantization_config'] != null) {
    const method = (raw['quantization_config'] as { quant_method?: unknown }).quant_method;
    throw unsupported(
      source,
      `a quantized checkpoint (quant_method ${show(method)})`,
      'use the unquantized checkpoint',
    );
  }
  if (raw.mlp_bias === true) throw unsupported(source, 'mlp_bias');
  if (raw.use_bidirectional_attention === true) throw unsupported(source, 'use_bidirectional_attention');
}

/** Families without biases on their projections call this. */
export function refuseAttentionBias(raw: HfConfig, source: ConfigSource): void {
  if (raw.attention_bias === true)
    throw unsupported(source, `attention_bias on ${show(raw.model_type ?? source.name)}`);
}

export function requireSilu(raw: HfConfig, source: ConfigSource): void {
  const activation = raw.hidden_act ?? 'silu';
  if (activation !== 'silu' && activation !== 'swish') throw unsupported(source, `hidden_act ${show(activation)}`);
}

function readDtype(raw: HfConfig, source: ConfigSource): ModelConfig['dtype'] {
  const dtype = raw.dtype ?? raw.torch_dtype ?? 'float32';
  switch (dtype) {
    case 'float32':
      return 'f32';
    case 'float16':
      return 'f16';
    case 'bfloat16':
      return 'bf16';
    default:
      throw unsupported(source, `dtype ${show(dtype)}`, 'use a float32, float16 or bfloat16 checkpoint');
  }
}

/** The sliding window: absent means what all families here begin with, null means none. */
export function readWindow({ sliding_window: window }: HfConfig): number | undefined {
  return window === undefined ? 4096 : (window ?? undefined);
}

/**
 * Windows per layer: `layer_types` where the config has it, else `slides(layer)`. A sliding layer attends to the last
 * `window` positions, itself included.
 */
export function readWindows(
  raw: HfConfig,
  source: ConfigSource,
  window: number | undefined,
  slides: (layer: number) => boolean,
): number[] {
  const types = raw.layer_types ?? undefined;
  const layers = raw.num_hidden_layers;
  if (types !== undefined && types.length !== layers) {
    throw invalid(source, `layer_types has ${types.length} entries, must have one for each of ${layers} layers`);
  }
  return Array.from({ length: layers }, (_, layer) => {
    const type = types?.[layer];
    if (type !== undefined && type !== 'sliding_attention' && type !== 'full_attention') {
      throw unsupported(source, `layer type ${show(type)}`);
    }
    if (type === undefined ? !slides(layer) : type === 'full_attention') return 0;
    if (window === undefined) throw invalid(source, `layer ${layer} slides, but no sliding_window is set`);
    return window;
  });
}

/** `layer_types` of a config, from its windows. */
export function layerTypes(windows: readonly number[]): string[] {
  return windows.map((window) => (window > 0 ? 'sliding_attention' : 'full_attention'));
}
