/** The report that is made where there is a GPU, made here of a small model on a processor that stands in for one. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { failuresOf, gpuReport, type GpuReport } from '../scripts/gpu/report.mjs';
import { createCudaBackend } from '../src/backends/cuda/index.js';
import { hostTarget } from '../src/backends/cuda/target.js';
import { hostCompiler, makeFakeDriver } from './support/cuda/fake-driver.js';
import { modelConfig, Workspace } from './support/models.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());

const sizes = {
  gateTokens: 9,
  decodeTokens: 4,
  rounds: 2,
  // The same context, so that the kernels are the same: compiling them is what takes long here.
  groups: [
    { context: 48, positions: [3] },
    { context: 48, positions: [40] },
  ],
};
const driverPath = makeFakeDriver(workspace.directory, 'libfakecuda', { freeBytes: 16 << 20 });
const backend = createCudaBackend({ driverPath, compiler: hostCompiler, target: hostTarget });

/** @param lastPart how many parts are done before it is too late for more */
async function reportOf(lastPart = Infinity): Promise<{ report: GpuReport; written: GpuReport[] }> {
  const written: GpuReport[] = [];
  const report = await gpuReport({
    backend,
    models: [{ name: 'small', published: {}, config: modelConfig('llama', 'bf16') }],
    ...{ cacheDir: workspace.cacheDir, isLate: () => written.length > lastPart, sizes },
    write: (soFar) => written.push(JSON.parse(JSON.stringify(soFar)) as GpuReport),
  });
  return { report, written };
}

it('has a gate, times and shares for every variant, and is written as it grows', async () => {
  const { report, written } = await reportOf();
  expect(written.at(-1)).toEqual(JSON.parse(JSON.stringify(report)));
  // Bandwidth, and of five variants the gate and two positions; each is written when it is there, and first what is to come.
  expect(written.map(({ missing }) => missing.length)).toEqual([...Array.from({ length: 17 }, (_, i) => 16 - i), 0]);
  expect(report.readBytesPerSec!.median).toBeGreaterThan(0);
  const [model] = report.models;
  expect(model).toMatchObject({ name: 'small', layers: 3, sameBits: true });
  const calls = { operator: 33, 'operator, single launches': 33, layer: 6, looped: 4, response: 1 / 4 };
  for (const [variant, perToken] of Object.entries(calls)) {
    const result = model!.schedules[variant]!;
    expect(result.gate, variant).toBe('passed');
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

it('begins nothing after the deadline, and names what is missing', async () => {
  // The bandwidth, all of the first variant, and the gate of the second.
  const { report, written } = await reportOf(5);
  expect(written.at(-1)).toEqual(JSON.parse(JSON.stringify(report)));
  expect(report.missing).toHaveLength(11);
  expect(report.missing.slice(0, 3)).toEqual([
    'small, operator: after 3 tokens',
    'small, operator: after 40 tokens',
    'small, looped: gate',
  ]);
  const { response, operator } = report.models[0]!.schedules;
  expect([response, operator].map((result) => Object.keys(result!.contexts))).toEqual([['3', '40'], []]);
  const { report: none } = await reportOf(0);
  expect(none.missing).toHaveLength(16);
});

describe('the command', () => {
  const out = join(workspace.directory, 'report.json');

  /** @param driver a library that the loader finds as the driver */
  function run(driver: string, ...args: string[]) {
    const libraries = mkdtempSync(join(workspace.directory, 'libraries-'));
    copyFileSync(driver, join(libraries, 'libcuda.so.1'));
    const { status, stderr } = spawnSync(process.execPath, ['scripts/gpu-report.mjs', '--out', out, ...args], {
      ...{ encoding: 'utf8', timeout: 60_000, env: { ...process.env, LD_LIBRARY_PATH: libraries } },
    });
    // Where the sources have changed since the last build, the first run builds, and says so.
    return { status, stderr: stderr.replace(/^ *[\d.]+ s {2}building: dist is older than src\n/, '') };
  }

  it('says in one line what is wrong', () => {
    const notOne = join(workspace.directory, 'no-library');
    writeFileSync(notOne, 'no library');
    const wrong = [
      run(driverPath, '--seconds', 'soon'),
      run(driverPath, '--fast'),
      run(driverPath, 'llama-9'),
      run(driverPath, 'llama-3.2-1b:17'),
      run(notOne),
    ];
    expect(wrong.map(({ status }) => status)).toEqual([2, 2, 2, 2, 1]);
    for (const { stderr } of wrong) expect(stderr).toMatch(/^gpu-report: [^\n]+\n$/);
    expect(wrong.at(-1)!.stderr).toMatch(/there is no CUDA driver .*install the NVIDIA driver/);
    expect(existsSync(out)).toBe(false);
  });

  it('writes what it has at the deadline, and exits with 3', () => {
    const { status, stderr } = run(driverPath, '--seconds', '0.001');
    expect(stderr).toMatch(/51 parts are missing, the first of them memory bandwidth/);
    expect(status).toBe(3);
    const report = JSON.parse(readFileSync(out, 'utf8')) as GpuReport;
    expect(report.missing).toContain('llama-3.1-8b, operator, single launches: after 16384 tokens');
    expect(report.models.map(({ layers }) => layers)).toEqual([16, 32]);
  });
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
