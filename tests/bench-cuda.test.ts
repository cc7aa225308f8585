/** `kloop bench --backend cuda` on a processor that stands in for a GPU. */
import { afterAll, expect, it } from 'vitest';
import { hostTarget } from '../src/backends/cuda/target.js';
import { createCudaBackend } from '../src/backends/cuda/index.js';
import { runBench } from '../src/bench/bench.js';
import { reportJson, reportLines } from '../src/bench/report.js';
import { writeSynthetic } from '../src/checkpoint/synth.js';
import { hostCompiler, makeFakeDriver } from './support/cuda/fake-driver.js';
import { modelConfig, Workspace } from './support/models.js';
import { join } from 'node:path';

const workspace = new Workspace();
afterAll(() => workspace.remove());

it('decodes at the contexts that fit, beside the bandwidth of the device', async () => {
  const driverPath = makeFakeDriver(workspace.directory, 'libfakecuda', ['FAKE_FREE_BYTES=(4<<20)']);
  const backend = createCudaBackend({ driverPath, compiler: hostCompiler, target: hostTarget });
  const model = join(workspace.directory, 'model');
  const config = modelConfig('llama', 'bf16');
  await writeSynthetic(config, model);
  const notices: string[] = [];
  const report = await runBench({
    ...{ model, backend, cacheDir: workspace.cacheDir, schedules: ['looped'], rounds: 1 },
    ...{ tokens: 4, promptTokens: 0, depth: 3, contexts: [7, config.context] },
    onNotice: (line) => notices.push(line),
  });
  expect(notices).toContainEqual(expect.stringContaining(`context ${config.context} is left out`));
  expect(report.results.map(({ workload, perToken }) => [workload, perToken?.kernelCalls])).toEqual([
    [{ kind: 'decode', tokens: 4, depth: 3 }, 4],
    [{ kind: 'decode', tokens: 4, depth: 7 }, 4],
  ]);
  for (const { bandwidthFraction } of report.results) expect(bandwidthFraction?.median).toBeGreaterThan(0);
  expect(report.gates).toMatchObject([{ identity: { schedule: 'looped' }, gate: 'passed' }]);
  expect(report.bandwidth?.measured).toHaveLength(2);
  expect(reportJson(report)).toMatchObject({ backend: 'cuda', depth: 3, skipped_contexts: [config.context] });
  expect(reportLines(report).join('\n')).toContain('tg4 @ d7');
});
