/**
 * The fields of a Hugging Face `config.json` that decide what a model computes, with the range each may take. Every
 * number is bounded here, so that nothing later multiplies or allocates with an absurd one. Field semantics and
 * defaults are those of transformers' `configuration_*.py`; fields not named here do not change the computation.
 */
import { z } from 'zod';
import { CheckpointError, UnsupportedModelError } from '../util/errors.js';
import { show } from '../util/checked.js';

/** Whose config is read: the model's name, and the file that errors point at. */
export interface ConfigSource {
  readonly name: string;
  readonly file: string;
}

/** A whole number within [min, max]; the error names value and range. */
function whole(min: number, max: number) {
  return z.custom<number>((v) => typeof v === 'number' && Number.isSafeInteger(v) && v >= min && v <= max, {
    error: (issue) => complaint(issue.input, `a whole number from ${min} to ${max}`),
  });
}

/** A finite number in (above, max]; the error names value and range. */
function positive(max: number, above = 0) {
  return z.custom<number>((v) => typeof v === 'number' && Number.isFinite(v) && v > above && v <= max, {
    error: (issue) =>
      complaint(issue.input, `a number above ${above}${max < Number.MAX_VALUE ? ` and up to ${max}` : ''}`),
  });
}

function complaint(input: unknown, allowed: string): string {
  return `${input === undefined ? 'is missing' : `is ${show(input)}`}, must be ${allowed}`;
}

const flag = z.boolean({ error: (issue) => complaint(issue.input, 'true or false') });
const word = z.string({ error: (issue) => complaint(issue.input, 'a string') });
const context = whole(1, 16_777_216);
const theta = positive(Number.MAX_VALUE);
// Bounds of a frequency factor: outside them the arithmetic of the scaled frequencies is no longer meaningful.
const factor = positive(1e6);

const rope = z.looseObject({
  rope_type: word.nullish(),
  type: word.nullish(),
  rope_theta: theta.nullish(),
  factor: factor.nullish(),
  low_freq_factor: factor.nullish(),
  high_freq_factor: factor.nullish(),
  original_max_position_embeddings: context.nullish(),
  partial_rotary_factor: positive(1).nullish(),
});

const hfConfig = z.looseObject({
  architectures: z.array(word).nullish(),
  model_type: word.nullish(),
  num_hidden_layers: whole(1, 1000),
  hidden_size: whole(1, 131_072),
  intermediate_size: whole(1, 1_048_576),
  num_attention_heads: whole(1, 1024),
  num_key_value_heads: whole(1, 1024).nullish(),
  head_dim: whole(2, 1024).nullish(),
  vocab_size: whole(1, 4_000_000),
  max_position_embeddings: context.nullish(),
  rms_norm_eps: positive(0.1).nullish(),
  rope_theta: theta.nullish(),
  rope_scaling: rope.nullish(),
  rope_parameters: rope.nullish(),
  partial_rotary_factor: positive(1).nullish(),
  tie_word_embeddings: flag.nullish(),
  hidden_act: word.nullish(),
  hidden_activation: word.nullish(),
  torch_dtype: word.nullish(),
  dtype: word.nullish(),
  attention_bias: flag.nullish(),
  mlp_bias: flag.nullish(),
  sliding_window: whole(1, 16_777_216).nullish(),
  use_sliding_window: flag.nullish(),
  max_window_layers: whole(0, 1_000_000).nullish(),
  layer_types: z.array(word).nullish(),
  use_bidirectional_attention: flag.nullish(),
  query_pre_attn_scalar: positive(1e6).nullish(),
  attn_logit_softcapping: positive(1e6).nullish(),
  final_logit_softcapping: positive(1e6).nullish(),
});

export type HfConfig = z.infer<typeof hfConfig>;
export type HfRope = z.infer<typeof rope>;

/** The checked fields, or a CheckpointError that names the first bad field, its value and the allowed range. */
export function checkHfConfig(json: unknown, source: ConfigSource): HfConfig {
  const result = hfConfig.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  if (issue === undefined || issue.path.length === 0) {
    throw invalid(source, `the config is ${show(json)}, must be a JSON object`);
  }
  throw invalid(source, `${issue.path.map(String).join('.')} ${issue.message}`);
}

/** The config contradicts itself or is out of range. */
export function invalid(source: ConfigSource, message: string): CheckpointError {
  return new CheckpointError(source.file, message);
}

/** The config is well formed, and asks for something kloop does not compile. */
export function unsupported(source: ConfigSource, feature: string, hint?: string): UnsupportedModelError {
  return new UnsupportedModelError(`${source.file}: ${feature} is not supported`, hint === undefined ? {} : { hint });
}
