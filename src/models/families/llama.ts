/**
 * Llama 2, 3, 3.1, 3.2, and what shares their architecture (SmolLM2, TinyStories): pre-norm decoder, RoPE, grouped
 * query attention, SwiGLU. Touvron et al., arXiv 2307.09288; Grattafiori et al., arXiv 2407.21783.
 */
import { unsupported } from '../hf-config.js';
import { readCommon, refuseAttentionBias, requireSilu } from './family.js';
import type { ModelFamily } from './family.js';

export const llama: ModelFamily = {
  family: 'llama',
  architecture: 'LlamaForCausalLM',
  modelType: 'llama',
  read(raw, source) {
    refuseAttentionBias(raw, source);
    requireSilu(raw, source);
    if (raw.layer_types?.some((type) => type !== 'full_attention') === true) {
      throw unsupported(source, 'sliding attention on a Llama model');
    }
    return readCommon(raw, source, 'llama', { context: 2048, tied: false });
  },
  write: () => ({ hidden_act: 'silu', attention_bias: false, mlp_bias: false }),
};
