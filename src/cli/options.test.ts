import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { samplingRanges } from '../checkpoint/sampling-ranges.js';
import { resolveSampling } from '../runtime/sampling.js';
import { addSamplingOptions, samplingOf, type SamplingFlags } from './options.js';

type Setting = keyof typeof samplingRanges;

/** The setting as the command line reads it. */
function parsed(name: Setting, value: number): number | undefined {
  const flag = `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  const command = addSamplingOptions(new Command(), '0')
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
  return samplingOf(command.parse([flag, String(value)], { from: 'user' }).opts<SamplingFlags>())[name];
}

describe('settings of sampling', () => {
  it.each(Object.keys(samplingRanges) as Setting[])('%s has the same range for all who set it', (name) => {
    const { min, max } = samplingRanges[name];
    for (const value of [min, max]) {
      expect(parsed(name, value)).toBe(value);
      expect(resolveSampling({ [name]: value })[name]).toBe(value);
    }
    for (const value of [min - 1, min - 1e-4, max + 1]) {
      expect(() => parsed(name, value)).toThrow();
      expect(() => resolveSampling({ [name]: value })).toThrow(name);
    }
  });
});
