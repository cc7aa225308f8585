/**
 * Mistral: Llama with one sliding window for all layers; later releases set it to null (full attention).
 * Jiang et al., arXiv 2310.06825.
 */
import { unsupported } from '../hf-config.js';
import { readCommon, readWindow, refuseAttentionBias, requireSilu } from './family.js';
import type { ModelFamily } from './family.js';

export const mistral: ModelFamily = {
  family: 'mistral',
  architecture: 'MistralForCausalLM',
  modelType: 'mistral',
  read(raw, source) {
    refuseAttentionBias(raw, source);
    requireSilu(raw, source);
    const common = readCommon(raw, source, 'mistral', { kvHeads: 8, context: 131_072, tied: false });
    const window = readWindow(raw) ?? 0;
    const kind = window > 0 ? 'sliding_attention' : 'full_attention';
    if (raw.layer_types?.some((type) => type !== kind) === true) {
      throw unsupported(source, 'a mix of layer_types on a Mistral model');
    }
    return { ...common, windows: common.windows.map(() => window) };
  },
  write(config) {
    const window = config.windows[0] ?? 0;
    return { hidden_act: 'silu', sliding_window: window > 0 ? window : null };
  },
};
