/** Models that went into a GGUF file and came back: the same logits, bit for bit where nothing is rounded on the way. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { logitsOfAll, relativeError, trace, type Trace } from './support/steps.js';
import { modelConfig, smallLimits, Workspace } from './support/models.js';
import { createQuickCpuBackend } from './support/quick-cpu.js';
import { findCompiler } from '../src/backends/cpu/toolchain.js';
import type { Backend } from '../src/backends/backend.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import type { DType } from '../src/ir/program.js';
import type { ModelConfig } from '../src/models/model-config.js';
import { parseModelConfig } from '../src/models/parse-config.js';
import { compileModel } from '../src/passes/pipeline.js';
import { UnsupportedModelError } from '../src/util/errors.js';
import { openCheckpoint } from '../src/checkpoint/directory.js';
import { openWeights, type Weights } from '../src/checkpoint/weights.js';
import type { GgufFormat } from '../src/checkpoint/gguf/format.js';
import { openGguf } from '../src/checkpoint/gguf/parse.js';
import { ggufWeights } from '../src/checkpoint/gguf/read-weights.js';
import { writeGguf } from '../src/checkpoint/gguf/writer.js';

const workspace = new Workspace();
const cacheDir = mkdtempSync(join(tmpdir(), 'kloop-gguf-reader-'));
const opened: Weights[] = [];
afterAll(() => {
  for (const weights of opened) weights.close();
  workspace.remove();
  rmSync(cacheDir, { recursive: true });
});

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url));
const backend = (await findCompiler()) === undefined ? referenceBackend : createQuickCpuBackend();

function keep<T extends Weights>(weights: T): T {
  opened.push(weights);
  return weights;
}

function fixture(family: string): { config: ModelConfig; weights: Weights } {
  const directory = join(fixtures, family);
  const json = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as unknown;
  return { config: parseModelConfig(json, family), weights: keep(openWeights(directory)) };
}

async function written(source: { config: ModelConfig; weights: Weights }, quant: GgufFormat) {
  const path = workspace.path(`${source.config.name}-${quant}`) + '.gguf';
  await writeGguf(source, path, { quant });
  const checkpoint = openCheckpoint(path);
  keep(checkpoint.weights);
  return checkpoint;
}

interface Formats {
  readonly weightFormat?: DType;
  readonly formatOf?: (tensor: string) => DType;
}

async function run(on: Backend, config: ModelConfig, weights: Weights, formats: Formats): Promise<Trace> {
  const { plan } = compileModel(config, {
    schedule: 'response',
    limits: smallLimits,
    stateFormat: 'f32',
    capabilities: on.capabilities,
    workers: 1,
    ...formats,
  });
  const executable = await on.prepare(plan, weights, { threads: 1, cacheDir });
  try {
    // Short enough for the windows that GGUF has no words for.
    return await trace(executable, { prompt: [1, 49, 171] }, 3);
  } finally {
    await executable.close();
  }
}

describe('a model in f32 computes what its directory does', () => {
  test.each(['llama', 'mistral', 'qwen2', 'qwen3'])('%s, bit for bit', async (family) => {
    const source = fixture(family);
    const { config, weights, formatOf } = await written(source, 'f32');
    const expected = await run(backend, source.config, source.weights, { weightFormat: 'f32' });
    expect(await run(backend, config, weights, { formatOf: formatOf! })).toEqual(expected);
  });

  // Divisors of frequencies and the scale of queries are rounded to float32 in the file.
  test.each(['llama3', 'gemma2'])('%s, but for a rounding', async (family) => {
    const source = fixture(family);
    const { config, weights, formatOf } = await written(source, 'f32');
    const expected = await run(backend, source.config, source.weights, { weightFormat: 'f32' });
    const actual = await run(backend, config, weights, { formatOf: formatOf! });
    expect(actual.tokens).toEqual(expected.tokens);
    actual.logits.forEach((logits, i) => expect(relativeError(logits, expected.logits[i]!)).toBeLessThan(1e-5));
  });
});

describe('a quantized model computes what `--quant` makes of its directory', () => {
  const config = modelConfig('llama', 'f32', { hidden_size: 96, intermediate_size: 160, rope_scaling: null });
  test.each(['q8_0', 'q4_0', 'bf16'] as const)('%s, bit for bit', async (quant) => {
    const weights = await workspace.weights(config);
    const expected = await run(backend, config, weights, { weightFormat: quant });
    const gguf = await written({ config, weights }, quant);
    expect(gguf.format).toBe(quant);
    expect(await run(backend, gguf.config, gguf.weights, { formatOf: gguf.formatOf! })).toEqual(expected);
  });
});

test('what does not fit the blocks stays f16, in a program of both', async () => {
  const config = modelConfig('llama', 'f32', { hidden_size: 96 });
  const gguf = await written({ config, weights: await workspace.weights(config) }, 'q8_0');
  expect(gguf.formatOf!('model.layers.0.mlp.down_proj.weight')).toBe('f16');
  expect(gguf.formatOf!('model.layers.0.mlp.up_proj.weight')).toBe('q8_0');
  const formats = { formatOf: gguf.formatOf! };
  const reference = await run(referenceBackend, gguf.config, gguf.weights, formats);
  const actual = await run(backend, gguf.config, gguf.weights, formats);
  actual.logits.forEach((logits, i) => expect(relativeError(logits, reference.logits[i]!)).toBeLessThan(0.02));
});

describe('a file of every format, by another writer', () => {
  const path = join(fixtures, 'gguf', 'mixed.gguf');
  const expected = JSON.parse(readFileSync(join(fixtures, 'gguf', 'mixed.json'), 'utf8')) as {
    prompt: number[];
    tokens: number[];
    logits: number[][];
  };
  // The cpu rounds inputs of quantized matrices to int8.
  const runs = [
    { name: 'reference', on: referenceBackend, tolerance: 1e-5 },
    { name: 'cpu', on: createQuickCpuBackend(), tolerance: 0.02 },
  ].filter(({ on }) => on === referenceBackend || backend !== referenceBackend);

  test.each(runs)('$name makes the logits of float64', async ({ on, tolerance }) => {
    const { config, weights, formatOf } = openCheckpoint(path);
    keep(weights);
    const { plan } = compileModel(config, {
      schedule: 'looped',
      limits: smallLimits,
      stateFormat: 'f32',
      formatOf: formatOf!,
      capabilities: on.capabilities,
      workers: 1,
    });
    const executable = await on.prepare(plan, weights, { threads: 1, cacheDir });
    const { prompt, tokens, logits } = expected;
    const made = await logitsOfAll(executable, [...prompt, ...tokens.slice(0, -1)], 4);
    await executable.close();
    made.slice(prompt.length - 1).forEach((row, i) => {
      expect(relativeError(row, Float32Array.from(logits[i]!)), `token ${i}`).toBeLessThan(tolerance);
    });
  });

  test('layers of different formats are not looped, and the report says so', () => {
    const { config, weights, formatOf } = openCheckpoint(path);
    keep(weights);
    const { capabilities } = referenceBackend;
    const options = { schedule: 'looped', limits: smallLimits, capabilities } as const;
    const { reports } = compileModel(config, { ...options, formatOf: formatOf! });
    const refusals = reports.flatMap((report) => report.refusals);
    expect(refusals.map(({ reason }) => reason)).toContain('differs-in-dtype');
    const alike = compileModel(config, { ...options, weightFormat: 'f32' });
    expect(alike.reports.flatMap((report) => report.refusals)).toEqual([]);
  });
});

test('rows come in the order of checkpoints, whatever part is read', async () => {
  const source = fixture('llama');
  const { weights } = await written(source, 'f32');
  for (const name of ['q_proj', 'k_proj', 'v_proj'].map((part) => `model.layers.1.self_attn.${part}.weight`)) {
    const [rows, width] = source.weights.describe(name).shape as [number, number];
    const whole = source.weights.readF32(name, 0, rows);
    for (const [first, count] of [
      [0, rows],
      [3, 2],
      [15, 18],
      [rows - 1, 1],
      [7, 0],
    ] as const) {
      const expected = whole.slice(first * width, (first + count) * width);
      expect(weights.readF32(name, first, count)).toEqual(expected);
    }
  }
});

test('a tensor that the model has no place for is refused', async () => {
  const config = modelConfig('llama');
  const { path } = await written(
    { config: modelConfig('qwen2'), weights: await workspace.weights(modelConfig('qwen2')) },
    'f32',
  );
  const file = openGguf(path);
  expect(() => ggufWeights(file, config)).toThrow(UnsupportedModelError);
  expect(() => ggufWeights(file, config)).toThrow(/tensor "blk.0.attn_q.bias" has no place in a llama model/);
  file.close();
});
