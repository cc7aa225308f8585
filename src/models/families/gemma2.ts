/**
 * Gemma 2: layers alternate between a sliding window (even) and full attention (odd), scores and logits are soft-capped,
 * norms stand before and after each half and store w - 1, GeGLU, embeddings scaled by sqrt(hidden).
 * Gemma Team, arXiv 2408.00118.
 */
import { show } from '../../util/checked.js';
import { unsupported } from '../hf-config.js';
import { layerTypes, readCommon, readWindow, readWindows, refuseAttentionBias } from './family.js';
import type { ModelFamily } from './family.js';

/** Absent means the published default, null means off. */
function softcap(value: number | null | undefined, fallback: number): number {
  return value === undefined ? fallback : (value ?? 0);
}

export const gemma2: ModelFamily = {
  family: 'gemma2',
  architecture: 'Gemma2ForCausalLM',
  modelType: 'gemma2',
  read(raw, source) {
    refuseAttentionBias(raw, source);
    const activation = raw.hidden_activation ?? 'gelu_pytorch_tanh';
    if (activation !== 'gelu_pytorch_tanh') throw unsupported(source, `hidden_activation ${show(activation)}`);
    const window = readWindow(raw);
    return {
      ...readCommon(raw, source, 'gemma2', { kvHeads: 4, headDim: 256, context: 8192, tied: true }),
      postNorms: true,
      normOffset: 1,
      activation: 'gelu',
      embeddingScale: Math.sqrt(raw.hidden_size),
      attentionScale: 1 / Math.sqrt(raw.query_pre_attn_scalar ?? 256),
      attentionSoftcap: softcap(raw.attn_logit_softcapping, 50),
      logitSoftcap: softcap(raw.final_logit_softcapping, 30),
      windows: readWindows(raw, source, window, (layer) => window !== undefined && layer % 2 === 0),
    };
  },
  write: (config) => ({
    hidden_activation: 'gelu_pytorch_tanh',
    attention_bias: false,
    // Twelve digits: the inverse of an inverse square root is exact to about fifteen.
    query_pre_attn_scalar: Number((1 / config.attentionScale ** 2).toPrecision(12)),
    attn_logit_softcapping: config.attentionSoftcap > 0 ? config.attentionSoftcap : null,
    final_logit_softcapping: config.logitSoftcap > 0 ? config.logitSoftcap : null,
    sliding_window: config.windows.find((window) => window > 0) ?? null,
    layer_types: layerTypes(config.windows),
  }),
};
