import { describe, expect, it } from 'vitest';
import { parseModelConfig, toHfConfig } from './parse-config.js';
import { findPreset, presets } from './presets.js';
import { parameterCount } from './tensors.js';

/** Totals as published with the weights (the safetensors totals of the Hub pages; the paper for TinyStories 15M). */
const published: Record<string, number> = {
  'llama-2-7b': 6_738_415_616,
  'llama-2-13b': 13_015_864_320,
  'llama-2-70b': 68_976_648_192,
  'llama-3.1-8b': 8_030_261_248,
  'llama-3.1-70b': 70_553_706_496,
  'llama-3.1-405b': 405_853_388_800,
  'llama-3.2-1b': 1_235_814_400,
  'llama-3.2-3b': 3_212_749_824,
  'mistral-7b': 7_241_732_096,
  'qwen2.5-0.5b': 494_032_768,
  'qwen2.5-7b': 7_615_616_512,
  'qwen2.5-72b': 72_706_203_648,
  // The Hub's total for Qwen3 0.6B (751,632,384) counts the tied head a second time: 596,049,920 + 151,936 * 1024.
  'qwen3-0.6b': 751_632_384 - 151_936 * 1024,
  'qwen3-8b': 8_190_735_360,
  'qwen3-32b': 32_762_123_264,
  'gemma-2-2b': 2_614_341_888,
  'gemma-2-9b': 9_241_705_984,
  'smollm2-135m': 134_515_008,
  'smollm2-360m': 361_821_120,
  'smollm2-1.7b': 1_711_376_384,
  'tinystories-15m': 15_191_712,
};

describe('presets', () => {
  it('have the published parameter counts', () => {
    expect(Object.fromEntries(presets.map(({ name, config }) => [name, parameterCount(config)]))).toEqual(published);
  });

  it.each(presets.map((preset) => [preset.name, preset] as const))('%s survives config.json', (name, { config }) => {
    const json: unknown = JSON.parse(JSON.stringify(toHfConfig(config)));
    expect(parseModelConfig(json, name)).toEqual(config);
  });

  it('are found by name', () => {
    expect(findPreset('Llama-3.1-8B')?.config.kvHeads).toBe(8);
    expect(findPreset('llama')).toBeUndefined();
  });

  it('have the traits of their families', () => {
    const gemma = findPreset('gemma-2-2b')!.config;
    expect(gemma.windows.slice(0, 4)).toEqual([4096, 0, 4096, 0]);
    expect(gemma).toMatchObject({ attentionScale: 1 / 16, embeddingScale: 48, normOffset: 1, tied: true });
    expect(findPreset('mistral-7b')!.config.windows).toEqual(new Array(32).fill(4096));
    expect(findPreset('qwen2.5-7b')!.config).toMatchObject({ qkvBias: true, qkNorm: false, headDim: 128 });
    expect(findPreset('qwen3-0.6b')!.config).toMatchObject({ qkvBias: false, qkNorm: true, headDim: 128 });
  });
});
