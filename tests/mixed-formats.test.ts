/**
 * Weights of several formats in one model, as GGUF files have them: several loops in one kernel, one int8 form of an input
 * for matrices of different formats. Schedules, thread counts and optimization change nothing.
 */
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import type { Backend, Executable } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/cpu/index.js';
import { usableInstructionSets } from '../src/backends/cpu/instruction-set.js';
import { findCompiler } from '../src/backends/cpu/toolchain.js';
import { openCheckpoint } from '../src/checkpoint/directory.js';
import type { Weights } from '../src/checkpoint/weights.js';
import type { DType, Schedule } from '../src/ir/program.js';
import type { ModelConfig } from '../src/models/model-config.js';
import { compileModel } from '../src/passes/pipeline.js';
import { modelConfig, smallLimits, Workspace } from './support/models.js';
import { createQuickCpuBackend } from './support/quick-cpu.js';
import { generate, logitsOfAll, promptOf, relativeError } from './support/steps.js';

const hasCompiler = (await findCompiler()) !== undefined;
const quick = createQuickCpuBackend();
const usual = createCpuBackend();
const workspace = new Workspace();
afterAll(() => workspace.remove());

interface Model {
  readonly config: ModelConfig;
  readonly weights: Weights;
  readonly formatOf: (tensor: string) => DType;
}

interface Setting {
  readonly schedule: Schedule;
  readonly threads: number;
  readonly instructionSet?: string;
}

const limits = { ...smallLimits, samples: smallLimits.rows };

function compile({ config, formatOf }: Model, { schedule, threads }: Setting) {
  const { capabilities } = quick;
  return compileModel(config, { schedule, limits, formatOf, capabilities, workers: threads, responseTokens: 3 });
}

/** Logits of a text fed in chunks of three rows and one by one, and tokens made in one request. */
async function results(
  model: Model,
  setting: Setting,
  on: Backend = quick,
): Promise<{ logits: Float32Array[]; tokens: readonly number[] }> {
  const { cacheDir } = workspace;
  const { threads, instructionSet } = setting;
  const options = { cacheDir, threads, ...(instructionSet === undefined ? {} : { instructionSet }) };
  const executable: Executable = await on.prepare(compile(model, setting).plan, model.weights, options);
  try {
    const prompt = promptOf(7, model.config.vocab);
    const logits = [...(await logitsOfAll(executable, prompt, 3)), ...(await logitsOfAll(executable, prompt, 1, 1))];
    const { tokens } = await generate(executable, { prompt, slot: 2 }, 7);
    return { logits, tokens: tokens[0]! };
  } finally {
    await executable.close();
  }
}

/** Formats change from layer to layer: 4 layers make two loops of two, or one of two layers. */
async function layered(formats: readonly DType[]): Promise<Model> {
  const config = modelConfig('llama', 'f32', {
    num_hidden_layers: formats.length,
    hidden_size: 96,
    intermediate_size: 64,
  });
  const formatOf = (tensor: string): DType => {
    const layer = /layers\.(\d+)/.exec(tensor)?.[1];
    return layer === undefined ? 'bf16' : formats[Number(layer)]!;
  };
  return { config, weights: await workspace.weights(config), formatOf };
}

function mixed(): Model {
  const { config, weights, formatOf } = openCheckpoint(
    fileURLToPath(new URL('fixtures/gguf/mixed.gguf', import.meta.url)),
  );
  return { config, weights, formatOf: formatOf! };
}

describe.runIf(hasCompiler)('every schedule and number of threads computes the same', () => {
  const cases: readonly [string, () => Promise<Model> | Model, loops: number, last: Backend][] = [
    ['two runs of layers of one format', () => layered(['q8_0', 'q8_0', 'q4_0', 'q4_0']), 2, quick],
    ['layers that take turns', () => layered(['q8_0', 'q4_0', 'q8_0', 'q4_0']), 1, quick],
    ['a run between two others', () => layered(['q8_0', 'f16', 'f16', 'q8_0']), 1, quick],
    ['a GGUF file of every format', mixed, 0, usual],
  ];
  test.each(cases)('%s', async (_, open, loops, last) => {
    const model = await open();
    const looped = compile(model, { schedule: 'looped', threads: 1 }).plan.step;
    expect(looped.kernels.filter(({ body }) => body.statements.some(({ kind }) => kind === 'loop'))).toHaveLength(
      loops,
    );
    const expected = await results(model, { schedule: 'operator', threads: 1 });
    for (const [schedule, threads, on] of [
      ['layer', 3, quick],
      ['looped', 1, quick],
      ['response', 3, last],
    ] as const) {
      const actual = await results(model, { schedule, threads }, on);
      expect(actual, `${schedule}, ${threads} threads`).toEqual(expected);
    }
  });

  /** Those with products of bfloat16 round what matrices in bf16 are multiplied with; the first of the others is compared with. */
  const [first, ...rest] = usableInstructionSets()
    .toSorted((a, b) => Number(a.float32 !== undefined) - Number(b.float32 !== undefined))
    .map(({ name, float32 }) => [name, float32 === undefined ? 1e-4 : 2e-2] as const);
  test.each(rest)('a GGUF file of every format, on %s', async (instructionSet, limit) => {
    const model = mixed();
    const expected = await results(model, { schedule: 'looped', threads: 1, instructionSet: first![0] });
    const { logits } = await results(model, { schedule: 'response', threads: 2, instructionSet });
    logits.forEach((row, i) => expect(relativeError(row, expected.logits[i]!)).toBeLessThan(limit));
  });
});
