/**
 * Hugging Face `config.json` to ModelConfig and back. The architecture named in the file picks a family, which reads
 * the fields in its own way; everything that arrives in a ModelConfig has been checked against a range.
 */
import { defined } from '../util/assert.js';
import { show } from '../util/checked.js';
import { UnsupportedModelError } from '../util/errors.js';
import type { ModelFamily } from './families/family.js';
import { families } from './families/index.js';
import type { ConfigSource } from './hf-config.js';
import { checkHfConfig, invalid } from './hf-config.js';
import type { ModelConfig } from './model-config.js';
import { ropeToHf } from './rope-config.js';

/**
 * Validates a parsed config.json. `name` becomes the config's name; `file` is what errors point at.
 * Throws CheckpointError (field, value, allowed range) or UnsupportedModelError (the feature, or the known architectures).
 */
export function parseModelConfig(json: unknown, name: string, file: string = name): ModelConfig {
  const source: ConfigSource = { name, file };
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw invalid(source, `the config is ${show(json)}, must be a JSON object`);
  }
  // The architecture comes first: of an unknown one, no other field has a known meaning.
  const family = pickFamily(json as Record<string, unknown>, source);
  return family.read(checkHfConfig(json, source), source);
}

function pickFamily(json: Record<string, unknown>, source: ConfigSource): ModelFamily {
  const architectures: unknown = json['architectures'];
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  const found = families.find((family) =>
    architecture === undefined ? family.modelType === json['model_type'] : family.architecture === architecture,
  );
  if (found !== undefined) return found;
  const named = architecture ?? json['model_type'];
  if (named === undefined) throw invalid(source, 'neither architectures nor model_type is set');
  throw new UnsupportedModelError(`${source.file}: architecture ${show(named)} is not supported`, {
    hint: `known are ${families.map((family) => family.architecture).join(', ')}`,
  });
}

const dtypeNames = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' } as const;

/** The config.json of a ModelConfig: `parseModelConfig(toHfConfig(c), c.name)` equals `c`. */
export function toHfConfig(config: ModelConfig): Record<string, unknown> {
  const family = defined(
    families.find((candidate) => candidate.family === config.family),
    `family ${config.family}`,
  );
  return {
    architectures: [family.architecture],
    model_type: family.modelType,
    vocab_size: config.vocab,
    hidden_size: config.hidden,
    intermediate_size: config.ffn,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    max_position_embeddings: config.context,
    rms_norm_eps: config.normEps,
    ...ropeToHf(config.rope),
    tie_word_embeddings: config.tied,
    torch_dtype: dtypeNames[config.dtype],
    ...family.write(config),
  };
}
