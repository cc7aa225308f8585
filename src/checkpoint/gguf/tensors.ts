/**
 * The tensors of a GGUF file and how each comes from a checkpoint. The differences are three: names, the order of Q and
 * K rows in `llama` files, and Gemma's norms, which are stored as w and not w - 1.
 *
 *   model.layers.3.self_attn.q_proj.weight  -->  blk.3.attn_q.weight
 */
import type { ModelConfig } from '../../models/model-config.js';
import { expectedTensors } from '../../models/tensors.js';
import { defined } from '../../util/assert.js';
import type { GgufFormat } from './format.js';
import { ggufFormats } from './format.js';
import { ggufArchitecture, queryFactor } from './metadata.js';

export interface GgufTensorPlan {
  readonly name: string;
  /** Name in the checkpoint. */
  readonly source: string;
  /** Rows first. */
  readonly shape: readonly number[];
  readonly format: GgufFormat;
  /**
   * Width of the heads whose rows are reordered, or 0. RoPE turns row i with row i + headDim/2 in checkpoints, and row
   * 2i with row 2i + 1 in `llama` files.
   */
  readonly interleaveHeads: number;
  /** Every weight becomes scale * w + offset. */
  readonly scale: number;
  readonly offset: number;
}

const layerNames: ReadonlyMap<string, string> = new Map([
  ['input_layernorm', 'attn_norm'],
  ['self_attn.q_proj', 'attn_q'],
  ['self_attn.k_proj', 'attn_k'],
  ['self_attn.v_proj', 'attn_v'],
  ['self_attn.q_norm', 'attn_q_norm'],
  ['self_attn.k_norm', 'attn_k_norm'],
  ['self_attn.o_proj', 'attn_output'],
  ['post_attention_layernorm', 'ffn_norm'],
  ['mlp.gate_proj', 'ffn_gate'],
  ['mlp.up_proj', 'ffn_up'],
  ['mlp.down_proj', 'ffn_down'],
]);

/** With norms on both sides of each half, one name means something else. */
const postNormNames: ReadonlyMap<string, string> = new Map([
  ['post_attention_layernorm', 'post_attention_norm'],
  ['pre_feedforward_layernorm', 'ffn_norm'],
  ['post_feedforward_layernorm', 'post_ffw_norm'],
]);

/** All tensors of the file, with matrices in `format` as far as its blocks divide their rows. */
export function planTensors(config: ModelConfig, format: GgufFormat): GgufTensorPlan[] {
  return expectedTensors(config).map(({ name, shape }) => planTensor(config, format, name, shape));
}

function planTensor(config: ModelConfig, format: GgufFormat, source: string, shape: readonly number[]): GgufTensorPlan {
  const name = ggufName(config, source);
  const isNorm = name.endsWith('norm.weight');
  const queries = /\battn_q\.(weight|bias)$/.test(name);
  const pairs = queries || /\battn_k\.(weight|bias)$/.test(name);
  return {
    name,
    source,
    shape,
    format: shape.length < 2 ? 'f32' : fitting(format, shape[1]!),
    interleaveHeads: pairs && ggufArchitecture(config) === 'llama' ? config.headDim : 0,
    scale: queries ? queryFactor(config) : 1,
    offset: isNorm ? config.normOffset : 0,
  };
}

/** As llama.cpp's quantizer does, rows that are no whole blocks are kept in f16. */
function fitting(format: GgufFormat, width: number): GgufFormat {
  return width % ggufFormats[format].blockElements === 0 ? format : 'f16';
}

function ggufName(config: ModelConfig, source: string): string {
  const layer = /^model\.layers\.(\d+)\.(.*)\.(weight|bias)$/.exec(source);
  if (layer !== null) {
    const [, index = '', part = '', kind = ''] = layer;
    const renamed = (config.postNorms ? postNormNames.get(part) : undefined) ?? layerNames.get(part);
    return `blk.${index}.${defined(renamed, `GGUF name of ${part}`)}.${kind}`;
  }
  const others: Record<string, string> = {
    'model.embed_tokens.weight': 'token_embd.weight',
    'model.norm.weight': 'output_norm.weight',
    'lm_head.weight': 'output.weight',
  };
  return defined(others[source], `GGUF name of ${source}`);
}
