/**
 * The tensors a model consists of, under their Hugging Face names. One list serves the check of a checkpoint, the
 * writing of a synthetic one, and the parameter count. A weight of a linear map is (outputs, inputs).
 */
import type { ModelConfig } from './model-config.js';

export interface ExpectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Every tensor of the model, in the order a forward pass reads them. Tied models have no `lm_head.weight`. */
export function expectedTensors(config: ModelConfig): ExpectedTensor[] {
  const { hidden, vocab } = config;
  const tensors: ExpectedTensor[] = [{ name: 'model.embed_tokens.weight', shape: [vocab, hidden] }];
  for (let layer = 0; layer < config.layers; layer += 1) {
    for (const { name, shape } of layerTensors(config)) tensors.push({ name: `model.layers.${layer}.${name}`, shape });
  }
  tensors.push({ name: 'model.norm.weight', shape: [hidden] });
  if (!config.tied) tensors.push({ name: 'lm_head.weight', shape: [vocab, hidden] });
  return tensors;
}

/** The tensors of one decoder layer, names relative to the layer. */
function layerTensors(config: ModelConfig): ExpectedTensor[] {
  const { hidden, ffn, headDim } = config;
  const qDim = config.heads * headDim;
  const kvDim = config.kvHeads * headDim;
  const bias = (name: string, size: number): ExpectedTensor[] => (config.qkvBias ? [{ name, shape: [size] }] : []);
  const qkNorm = (name: string): ExpectedTensor[] => (config.qkNorm ? [{ name, shape: [headDim] }] : []);
  const postNorm = (name: string): ExpectedTensor[] => (config.postNorms ? [{ name, shape: [hidden] }] : []);
  return [
    { name: 'input_layernorm.weight', shape: [hidden] },
    { name: 'self_attn.q_proj.weight', shape: [qDim, hidden] },
    ...bias('self_attn.q_proj.bias', qDim),
    { name: 'self_attn.k_proj.weight', shape: [kvDim, hidden] },
    ...bias('self_attn.k_proj.bias', kvDim),
    { name: 'self_attn.v_proj.weight', shape: [kvDim, hidden] },
    ...bias('self_attn.v_proj.bias', kvDim),
    ...qkNorm('self_attn.q_norm.weight'),
    ...qkNorm('self_attn.k_norm.weight'),
    { name: 'self_attn.o_proj.weight', shape: [hidden, qDim] },
    // Without post-norms this one stands before the feed-forward network, whatever its name says.
    { name: 'post_attention_layernorm.weight', shape: [hidden] },
    ...postNorm('pre_feedforward_layernorm.weight'),
    { name: 'mlp.gate_proj.weight', shape: [ffn, hidden] },
    { name: 'mlp.up_proj.weight', shape: [ffn, hidden] },
    { name: 'mlp.down_proj.weight', shape: [hidden, ffn] },
    ...postNorm('post_feedforward_layernorm.weight'),
  ];
}

/** Number of stored parameters; a tied head counts once. */
export function parameterCount(config: ModelConfig): number {
  return expectedTensors(config).reduce(
    (sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1),
    0,
  );
}
