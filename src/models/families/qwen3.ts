/**
 * Qwen3 (dense): Llama with an RMSNorm on every query and key head before RoPE, an explicit head size, no biases.
 * Yang et al., arXiv 2505.09388.
 */
import { readCommon, refuseAttentionBias, requireSilu } from './family.js';
import type { ModelFamily } from './family.js';
import { qwenWindowFields, qwenWindows } from './qwen2.js';

export const qwen3: ModelFamily = {
  family: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  modelType: 'qwen3',
  read(raw, source) {
    refuseAttentionBias(raw, source);
    requireSilu(raw, source);
    const defaults = { kvHeads: 32, headDim: 128, context: 32_768, tied: false };
    return { ...readCommon(raw, source, 'qwen3', defaults), qkNorm: true, windows: qwenWindows(raw, source) };
  },
  write: (config) => ({ hidden_act: 'silu', attention_bias: false, ...qwenWindowFields(config) }),
};
