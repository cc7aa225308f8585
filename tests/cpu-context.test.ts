/**
 * Texts of several blocks of the context on the cpu backend, end to end: every division of attention, in every format of the
 * KV cache, gives the same bits, and what the reference backend gives up to rounding.
 */
import { afterAll, expect, it } from 'vitest';
import type { Executable } from '../src/backends/backend.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import type { DType, Schedule } from '../src/ir/program.js';
import { compileModel } from '../src/passes/pipeline.js';
import { modelConfig, Workspace } from './support/models.js';
import { createQuickCpuBackend } from './support/quick-cpu.js';
import { generate, promptOf, relativeError, trace, type Text } from './support/steps.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());
const cpu = createQuickCpuBackend();

/** Three heads of 32 that share one key/value head. */
const config = modelConfig('llama-tied', 'f32', { hidden_size: 96, max_position_embeddings: 1024 });
const weights = workspace.weights(config);
const limits = { rows: 96, samples: 2, slots: 2, context: 600 };
const text: Text = { prompt: promptOf(530, config.vocab, 8), chunk: 96 };
const made = 4;

interface Machine {
  readonly schedule?: Schedule;
  readonly threads?: number;
}

async function onCpu(stateFormat: DType, { schedule = 'response', threads = 1 }: Machine = {}): Promise<Executable> {
  const options = {
    schedule,
    limits,
    responseTokens: 2,
    workers: threads,
    capabilities: cpu.capabilities,
    stateFormat,
  };
  const { plan } = compileModel(config, options);
  return cpu.prepare(plan, await weights, { cacheDir: workspace.cacheDir, threads });
}

it.each([
  ['f32', 2e-3],
  ['q8_0', 3e-2],
] as const)(
  'with a KV cache in %s a long text is the same however it is divided',
  async (format, tolerance) => {
    const single = await onCpu(format);
    const expected = await trace(single, text, made);
    await single.close();

    const options = { schedule: 'looped', limits, capabilities: referenceBackend.capabilities } as const;
    const { plan } = compileModel(config, { ...options, stateFormat: format });
    const reference = await referenceBackend.prepare(plan, await weights, {});
    const oracle = await trace(reference, text, 1);
    expect(relativeError(expected.logits[0]!, oracle.logits[0]!)).toBeLessThan(tolerance);

    const machines: readonly Machine[] = [
      ...[2, 3, 8].map((threads) => ({ threads })),
      ...(format === 'f32' ? [{ threads: 2, schedule: 'operator' } as const] : []),
    ];
    for (const machine of machines) {
      const executable = await onCpu(format, machine);
      const { tokens, logits } = await trace(executable, { ...text, chunk: 41, slot: 1 }, made);
      const name = JSON.stringify(machine);
      expect(tokens, name).toEqual(expected.tokens);
      expect(logits, name).toEqual(expected.logits);
      expect((await generate(executable, text, made)).tokens, name).toEqual([expected.tokens]);
      await executable.close();
    }
  },
  120_000,
);
