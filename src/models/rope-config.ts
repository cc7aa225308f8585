/**
 * Reads rotary embedding settings in both spellings: `rope_theta` beside `rope_scaling` (null or an object), and the
 * newer single `rope_parameters` object that holds both. Either object may hold the theta. The scaling rules are those of
 * transformers' `modeling_rope_utils.py`; what is not compiled is refused by name.
 */
import { isDeepStrictEqual } from 'node:util';
import { unreachable } from '../util/assert.js';
import { show } from '../util/checked.js';
import type { ConfigSource, HfConfig, HfRope } from './hf-config.js';
import { invalid, unsupported } from './hf-config.js';
import type { RopeConfig, RopeScaling } from './model-config.js';

const defaultTheta = 10_000;

/** RoPE base and scaling of a config; throws on a scaling that is unknown, incomplete or not compiled. */
export function readRope(raw: HfConfig, source: ConfigSource): RopeConfig {
  const { rope_parameters: parameters, rope_scaling: older } = raw;
  const rope = readSettings(parameters ?? older ?? {}, raw, source);
  if (parameters != null && older != null && !isDeepStrictEqual(rope, readSettings(older, raw, source))) {
    throw invalid(source, 'rope_parameters and rope_scaling differ');
  }
  return rope;
}

function readSettings(settings: HfRope, raw: HfConfig, source: ConfigSource): RopeConfig {
  const partial = settings.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
  if (partial !== 1) throw unsupported(source, `partial_rotary_factor ${partial}`);
  const theta = settings.rope_theta ?? raw.rope_theta ?? defaultTheta;
  return { theta, scaling: readScaling(settings, source) };
}

function readScaling(settings: HfRope, source: ConfigSource): RopeScaling {
  const kind = settings.rope_type ?? settings.type ?? undefined;
  const need = (field: 'factor' | 'low_freq_factor' | 'high_freq_factor' | 'original_max_position_embeddings') => {
    const value = settings[field] ?? undefined;
    if (value === undefined) throw invalid(source, `rope scaling ${show(kind)} lacks ${field}`);
    return value;
  };
  switch (kind) {
    case undefined:
      // `rope_parameters` with a theta for each kind of layer nests objects, and has no type of its own.
      if (Object.values(settings).some((value) => typeof value === 'object' && value !== null)) {
        throw unsupported(source, 'rope_parameters per layer type');
      }
      if (settings.factor != null)
        throw invalid(source, `rope scaling has a factor ${settings.factor} and no rope_type`);
      return { kind: 'none' };
    case 'default':
      return { kind: 'none' };
    case 'linear':
      return { kind: 'linear', factor: need('factor') };
    case 'llama3': {
      const lowFreqFactor = need('low_freq_factor');
      const highFreqFactor = need('high_freq_factor');
      if (highFreqFactor <= lowFreqFactor) {
        throw invalid(source, `high_freq_factor is ${highFreqFactor}, must be above low_freq_factor ${lowFreqFactor}`);
      }
      const originalContext = need('original_max_position_embeddings');
      return { kind: 'llama3', factor: need('factor'), lowFreqFactor, highFreqFactor, originalContext };
    }
    default:
      throw unsupported(source, `rope scaling ${show(kind)}`, 'use a model with linear, llama3 or no rope scaling');
  }
}

/** `rope_theta` and `rope_scaling` as a config.json has them. */
export function ropeToHf(rope: RopeConfig): Record<string, unknown> {
  const { scaling, theta } = rope;
  switch (scaling.kind) {
    case 'none':
      return { rope_theta: theta, rope_scaling: null };
    case 'linear':
      return { rope_theta: theta, rope_scaling: { rope_type: 'linear', factor: scaling.factor } };
    case 'llama3':
      return {
        rope_theta: theta,
        rope_scaling: {
          rope_type: 'llama3',
          factor: scaling.factor,
          low_freq_factor: scaling.lowFreqFactor,
          high_freq_factor: scaling.highFreqFactor,
          original_max_position_embeddings: scaling.originalContext,
        },
      };
    case 'divisors':
      return unreachable('a config.json has no word for divisors');
    default:
      return scaling satisfies never;
  }
}
