/**
 * The cpu backend on every family, in the formats and with the instruction sets and numbers of threads that the shared
 * suite leaves out. Compared with the reference backend, which rounds weights and cache as the program says.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Executable } from '../src/backends/backend.js';
import { usableInstructionSets } from '../src/backends/cpu/instruction-set.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import type { ModelConfig } from '../src/models/model-config.js';
import { compileModel } from '../src/passes/pipeline.js';
import { modelConfig, modelNames, smallLimits, Workspace, type ModelName, type StoredDtype } from './support/models.js';
import { createQuickCpuBackend } from './support/quick-cpu.js';
import { generate, logitsOfAll, promptOf, relativeError, trace } from './support/steps.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());
const cpu = createQuickCpuBackend();
const limits = { ...smallLimits, samples: smallLimits.rows };
const responseTokens = 5;

interface Machine {
  readonly threads: number;
  /** Workers that the program is planned for. */
  readonly workers?: number;
  readonly instructionSet?: string;
}

const weights = new Map<string, Awaited<ReturnType<Workspace['weights']>>>();

async function weightsOf(config: ModelConfig): Promise<Awaited<ReturnType<Workspace['weights']>>> {
  const key = `${config.name} ${config.dtype}`;
  const known = weights.get(key) ?? (await workspace.weights(config));
  weights.set(key, known);
  return known;
}

async function onCpu(
  config: ModelConfig,
  { threads, workers = threads, instructionSet }: Machine,
): Promise<Executable> {
  const options = { schedule: 'response', limits, responseTokens, workers, capabilities: cpu.capabilities } as const;
  const { plan } = compileModel(config, options);
  const set = instructionSet === undefined ? {} : { instructionSet };
  return cpu.prepare(plan, await weightsOf(config), { cacheDir: workspace.cacheDir, threads, ...set });
}

async function onReference(config: ModelConfig): Promise<Executable> {
  const options = { schedule: 'looped', limits, capabilities: referenceBackend.capabilities } as const;
  return referenceBackend.prepare(compileModel(config, options).plan, await weightsOf(config), {});
}

/** Largest error of the logits after any token of a text. */
async function errorOf(executable: Executable, config: ModelConfig): Promise<number> {
  const text = promptOf(13, config.vocab, 2);
  const reference = await onReference(config);
  const expected = await logitsOfAll(reference, text, 8);
  const actual = await logitsOfAll(executable, text, 8);
  await Promise.all([reference.close(), executable.close()]);
  return Math.max(...actual.map((logits, at) => relativeError(logits, expected[at]!)));
}

it.each([...modelNames.map((name) => ['bf16', name] as const), ['f16', 'llama'], ['f16', 'qwen3']] as const)(
  'with %s weights %s agrees with the reference',
  async (dtype, name) => {
    const config = modelConfig(name, dtype);
    expect(await errorOf(await onCpu(config, { threads: 2 }), config)).toBeLessThan(3e-2);
  },
);

const runnable = usableInstructionSets();

describe.each(runnable.map(({ name }) => name))('instruction set %s', (instructionSet) => {
  const cases: readonly (readonly [ModelName, StoredDtype, number])[] = [
    ['llama', 'f32', 2e-3],
    ['gemma2', 'f16', 3e-2],
    ['qwen3', 'bf16', 3e-2],
  ];

  it.each(cases)('%s in %s agrees with the reference', async (name, dtype, most) => {
    const config = modelConfig(name, dtype);
    expect(await errorOf(await onCpu(config, { threads: 2, instructionSet }), config)).toBeLessThan(most);
  });
});

it('refuses an instruction set that is not there, before it compiles', async () => {
  const config = modelConfig('llama');
  await expect(onCpu(config, { threads: 1, instructionSet: 'sparc' })).rejects.toThrow(/cannot run.*use one of/);
});

describe.each([
  ['llama', 2],
  ['qwen3', 2],
  ['qwen3', 3],
  ['gemma2', 3],
] as const)('%s, planned for %i workers', (name, workers) => {
  const config = modelConfig(name);
  const text = { prompt: promptOf(9, config.vocab, 3), chunk: 4 };
  let expected: Awaited<ReturnType<typeof trace>>;
  beforeAll(async () => {
    const single = await onCpu(config, { threads: 1, workers });
    expected = await trace(single, text, 6);
    await single.close();
  });

  it.each([2, 3, 4, 8])('gives the same bits on %i threads', async (threads) => {
    const executable = await onCpu(config, { threads, workers });
    expect(executable.threads).toBe(threads);
    const { tokens, logits } = await trace(executable, text, 6);
    expect(tokens).toEqual(expected.tokens);
    expect(logits).toEqual(expected.logits);
    expect((await generate(executable, { ...text, slot: 1 }, 6)).tokens).toEqual([expected.tokens]);
    await executable.close();
  });
});

it('gives the same bits however many workers a program was planned for', async () => {
  const config = modelConfig('qwen3');
  const text = { prompt: promptOf(9, config.vocab, 3), chunk: 4 };
  const traces = [];
  for (const workers of [1, 2, 3]) {
    const executable = await onCpu(config, { threads: 2, workers });
    traces.push(await trace(executable, text, 4));
    await executable.close();
  }
  for (const one of traces) expect(one).toEqual(traces[0]);
});
