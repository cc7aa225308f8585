/**
 * RoPE frequencies of a head: theta^(-2i/n) for i < n/2, with the published scalings. Source of the llama3 form: Llama 3.1
 * model card and its reference configuration (`rope_scaling`).
 */
import { defined } from '../util/assert.js';
import type { RopeConfig } from './model-config.js';

/** Radians per position, length headDim / 2. Float32 values, as every implementation stores them. */
export function ropeFrequencies(rope: RopeConfig, headDim: number): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) =>
    Math.fround(scaled(Math.pow(rope.theta, (-2 * i) / headDim), i, rope.scaling)),
  );
}

function scaled(frequency: number, index: number, scaling: RopeConfig['scaling']): number {
  switch (scaling.kind) {
    case 'none':
      return frequency;
    case 'linear':
      return frequency / scaling.factor;
    case 'llama3': {
      const { factor, lowFreqFactor, highFreqFactor, originalContext } = scaling;
      // How many turns this frequency makes over the original context decides: few are stretched, many are kept.
      const turns = (originalContext * frequency) / (2 * Math.PI);
      if (turns < lowFreqFactor) return frequency / factor;
      if (turns > highFreqFactor) return frequency;
      const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
      return (1 - smooth) * (frequency / factor) + smooth * frequency;
    }
    case 'divisors':
      return frequency / defined(scaling.values[index], `divisor ${index}`);
    default:
      return scaling satisfies never;
  }
}
