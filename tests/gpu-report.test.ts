/** The report that is made where there is a GPU, made here of a small model on a processor that stands in for one. */
import { afterAll, expect, it } from 'vitest';
import { gpuReport } from '../scripts/gpu-report.mjs';
import { createCudaBackend } from '../src/backends/cuda/index.js';
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
});
