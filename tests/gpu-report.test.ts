/** The report that is made where there is a GPU, made here of a small model on a processor that stands in for one. */
import { afterAll, expect, it } from 'vitest';
import { failuresOf, gpuReport, type GpuReport } from '../scripts/gpu-report.mjs';
import { createCudaBackend } from '../src/backends/cuda/index.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import { hostTarget } from '../src/backends/cuda/target.js';
import { hostCompiler, makeFakeDriver } from './support/cuda/fake-driver.js';
import { modelConfig, Workspace } from './support/models.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());

it('has a gate, times and shares for every schedule, and is written as it grows', async () => {
  const driverPath = makeFakeDriver(workspace.directory, 'libfakecuda', ['FAKE_FREE_BYTES=(16<<20)']);
  const backend = createCudaBackend({ driverPath, compiler: hostCompiler, target: hostTarget });
  const written: string[] = [];
  const sizes = {
    gateTokens: 9,
    decodeTokens: 4,
    rounds: 2,
    groups: [
      { context: 24, positions: [3] },
      { context: 48, positions: [40] },
    ],
  };
  const report = await gpuReport({
    backend,
    models: [{ name: 'small', published: {}, config: modelConfig('llama', 'bf16') }],
    cacheDir: workspace.cacheDir,
    deadline: 1e9,
    sizes,
    write: (soFar) => written.push(JSON.stringify(soFar)),
  });
  expect(written.length).toBe(6);
  expect(JSON.parse(written.at(-1)!)).toEqual(JSON.parse(JSON.stringify(report)));
  expect(report.readBytesPerSec.median).toBeGreaterThan(0);
  const [model] = report.models;
  expect(model).toMatchObject({ name: 'small', layers: 3, sameBits: true });
  const calls = { operator: 33, layer: 6, looped: 4, response: 1 / 4 };
  for (const [schedule, perToken] of Object.entries(calls)) {
    const result = model!.schedules[schedule]!;
    expect(result.gate, schedule).toBe('passed');
    for (const position of [3, 40]) {
      const { usPerToken, bandwidthShare, kernelCallsPerToken, bytesPerToken } = result.contexts[position]!;
      expect(usPerToken.all).toHaveLength(2);
      expect(bandwidthShare).toBeGreaterThan(0);
      expect(kernelCallsPerToken).toBe(perToken);
      expect(bytesPerToken).toBeGreaterThan(10_000);
    }
  }
  expect(failuresOf(report)).toEqual([]);
});

it('begins no model after the deadline, and says so', async () => {
  const meter = { threads: 1, bytes: 1, measure: () => 5e9, close: () => undefined };
  const written: GpuReport[] = [];
  const report = await gpuReport({
    backend: { ...referenceBackend, openBandwidthMeter: () => Promise.resolve(meter) },
    models: [{ name: 'late', published: {}, config: modelConfig('llama', 'bf16') }],
    // No weights can be written there.
    ...{ cacheDir: '/dev/null', deadline: 0, write: (soFar) => written.push(structuredClone(soFar)) },
    sizes: { gateTokens: 1, decodeTokens: 1, rounds: 1, groups: [] },
  });
  expect(report.models).toEqual([expect.objectContaining({ cutShort: 'the whole model was not run', schedules: {} })]);
  expect(written.at(-1)?.models).toHaveLength(1);
});

it('names what failed', () => {
  const result = { contexts: {} };
  const model: GpuReport['models'][number] = {
    ...{ name: 'small', layers: 1, sameBits: false },
    schedules: {
      looped: { ...result, gate: 'passed', meanKl: 0, nllShift: 0 },
      layer: { ...result, gate: 'failed', meanKl: 0.5, nllShift: 0.25 },
    },
  };
  expect(failuresOf({ models: [model] })).toEqual([
    'small, layer: gate failed, KL divergence 0.5, negative log-likelihood off by 0.25',
    'small: logits of the schedules are not equal bit for bit',
  ]);
});
