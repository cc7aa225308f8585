/**
 * Qwen2 and Qwen2.5: Llama with biases on the Q, K and V projections. A sliding window exists in the config, and is
 * off in the published models (`use_sliding_window` false). Yang et al., arXiv 2407.10671.
 */
import type { HfConfig, ConfigSource } from '../hf-config.js';
import type { ModelConfig } from '../model-config.js';
import { layerTypes, readCommon, readWindow, readWindows, requireSilu } from './family.js';
import type { ModelFamily } from './family.js';

export const qwen2: ModelFamily = {
  family: 'qwen2',
  architecture: 'Qwen2ForCausalLM',
  modelType: 'qwen2',
  read(raw, source) {
    requireSilu(raw, source);
    const common = readCommon(raw, source, 'qwen2', { kvHeads: 32, context: 32_768, tied: false });
    return { ...common, qkvBias: true, windows: qwenWindows(raw, source) };
  },
  write: (config) => ({ hidden_act: 'silu', ...qwenWindowFields(config) }),
};

/** With `use_sliding_window`, the layers from `max_window_layers` on slide. Shared with Qwen3. */
export function qwenWindows(raw: HfConfig, source: ConfigSource): number[] {
  const window = raw.use_sliding_window === true ? readWindow(raw) : undefined;
  const firstSliding = raw.max_window_layers ?? 28;
  return readWindows(raw, source, window, (layer) => window !== undefined && layer >= firstSliding);
}

export function qwenWindowFields(config: ModelConfig): Record<string, unknown> {
  const window = config.windows.find((w) => w > 0);
  return window === undefined
    ? { use_sliding_window: false, sliding_window: null }
    : { use_sliding_window: true, sliding_window: window, layer_types: layerTypes(config.windows) };
}
