/** `kloop bench --backend cuda` on a processor that stands in for a GPU. */
import { afterAll, expect, it } from 'vitest';
import { hostTarget } from '../src/backends/cuda/target.js';
import { createCudaBackend } from '../src/backends/cuda/index.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import { runBench, type BenchOptions } from '../src/bench/bench.js';
import { reportJson, reportLines } from '../src/bench/report.js';
import { variantName, workloadName } from '../src/bench/workload.js';
import { writeSynthetic } from '../src/checkpoint/synth.js';
import { hostCompiler, makeFakeDriver } from './support/cuda/fake-driver.js';
import { modelConfig, Workspace } from './support/models.js';
import { join } from 'node:path';

const workspace = new Workspace();
afterAll(() => workspace.remove());

it('decodes at the contexts that fit, beside the bandwidth of the device', async () => {
  const driverPath = makeFakeDriver(workspace.directory, 'libfakecuda', { freeBytes: 16 << 20 });
  const backend = createCudaBackend({ driverPath, compiler: hostCompiler, target: hostTarget });
  const model = join(workspace.directory, 'model');
  const config = modelConfig('llama', 'bf16');
  await writeSynthetic(config, model);
  const notices: string[] = [];
  const options: Omit<BenchOptions, 'backend'> = {
    ...{ model, cacheDir: workspace.cacheDir, schedules: ['operator'], singleLaunches: true, rounds: 1 },
    ...{ tokens: 4, promptTokens: 0, depth: 3, contexts: [7, config.context] },
  };
  await expect(runBench({ ...options, backend: referenceBackend })).rejects.toThrow(/leave out --single-launches/);
  const report = await runBench({
    ...{ ...options, backend },
    onNotice: (line) => notices.push(line),
  });
  expect(notices).toContainEqual(expect.stringContaining(`context ${config.context} is left out`));
  expect(
    report.results.map(({ identity, workload, perToken }) => [
      variantName(identity),
      workloadName(workload),
      perToken?.kernelCalls,
    ]),
  ).toEqual(
    ['tg4 @ d3', 'tg4 @ d7'].flatMap((workload) => [
      ['operator, single launches', workload, 33],
      ['operator', workload, 33],
    ]),
  );
  // The schedule as it is used is what others are compared with.
  expect(report.results.map(({ ratioToOperator }) => ratioToOperator?.median === 1)).toEqual([
    ...[false, true],
    ...[false, true],
  ]);
  for (const { bandwidthFraction } of report.results) expect(bandwidthFraction?.median).toBeGreaterThan(0);
  expect(report.gates.map(({ identity, gate }) => [variantName(identity), gate])).toEqual([
    ['operator, single launches', 'passed'],
    ['operator', 'passed'],
  ]);
  expect(report.bandwidth?.measured).toHaveLength(2);
  expect(reportJson(report)).toMatchObject({
    ...{ backend: 'cuda', depth: 3 },
    skipped_contexts: [{ context: config.context, reason: 'positions' }],
  });
  expect(reportLines(report).join('\n')).toContain('tg4 @ d7');
});

it('leaves out contexts that the device has no memory for, and measures the others', async () => {
  const driverPath = makeFakeDriver(workspace.directory, 'libsmallcuda', { freeBytes: 4 << 20 });
  const backend = createCudaBackend({ driverPath, compiler: hostCompiler, target: hostTarget });
  const model = join(workspace.directory, 'long');
  await writeSynthetic({ ...modelConfig('llama', 'bf16'), context: 1 << 16 }, model);
  const notices: string[] = [];
  const options: BenchOptions = {
    ...{ model, cacheDir: workspace.cacheDir, schedules: ['looped'], rounds: 1, backend },
    ...{ tokens: 2, promptTokens: 0, depth: 3, contexts: [65000, 20] },
    onNotice: (line) => notices.push(line),
  };
  const report = await runBench(options);
  expect(report.results.map(({ workload }) => workloadName(workload))).toEqual(['tg2 @ d3', 'tg2 @ d20']);
  expect(notices).toContainEqual(
    expect.stringMatching(/^context 65000 is left out: .* memory are needed, and 4\.\d+ MB are/),
  );
  expect(reportLines(report)).toContainEqual(
    expect.stringMatching(/^tg2 @ d65000 left out: .* needed, 4\.\d+ MB are free$/),
  );
  expect(reportJson(report)).toMatchObject({
    skipped_contexts: [{ context: 65000, reason: 'memory', free_bytes: 4 << 20 }],
  });
  await expect(runBench({ ...options, context: 65536 })).rejects.toThrow(
    /needs .* on the device, and 4\.\d+ MB are free/,
  );
});
