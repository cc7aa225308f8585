/**
 * `kloop bench --peer pytorch`: the real program of the peer, on stand-ins of torch and transformers that compute a Llama
 * in float64 from the same file, independently of all that is ours.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Backend } from '../src/backends/backend.js';
import { findCompiler } from '../src/backends/cpu/toolchain.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import { runBench, type BenchOptions, type BenchReport } from '../src/bench/bench.js';
import { reportJson, reportLines } from '../src/bench/report.js';
import { writeSynthetic } from '../src/checkpoint/synth.js';
import { UsageError } from '../src/util/errors.js';
import { parseModelConfig } from '../src/models/parse-config.js';
import { standInPyTorch } from './support/pytorch.js';
import { tinyConfig } from './support/tiny-model.js';
import { Workspace } from './support/models.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());
afterEach(() => vi.unstubAllEnvs());

/** No time is spent on the bandwidth of this machine. */
const backend: Backend = {
  ...referenceBackend,
  openBandwidthMeter: () => Promise.resolve({ threads: 1, bytes: 1, measure: () => 1e9, close: () => undefined }),
};
const model = join(workspace.directory, 'model');

function bench(
  environment: Readonly<Record<string, string>>,
  options: Partial<BenchOptions> = {},
): Promise<BenchReport> {
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  return runBench({
    ...{ model, backend, cacheDir: workspace.cacheDir, schedules: ['looped'], rounds: 1, peers: ['pytorch'] },
    ...{ tokens: 3, promptTokens: 5, context: 16 },
    ...options,
  });
}

const rowNames = ['PyTorch eager f32', 'PyTorch compiled f32'];
const environment = standInPyTorch();
const compiler = await findCompiler();

describe.runIf(environment !== undefined)('PyTorch beside ours', () => {
  const found = environment ?? {};
  beforeAll(() =>
    writeSynthetic(parseModelConfig({ ...tinyConfig, intermediate_size: 64 }, 'tiny'), model, { seed: 3 }),
  );

  it('makes the same tokens, eager and compiled, as ours with the weights of the file, and is timed in the same rounds', async () => {
    const report = await bench(found, { quant: 'q8_0' });
    expect(report.quant).toBe('q8_0');
    expect(report.correctness.peers).toMatchObject(
      ['eager', 'compiled'].map((mode) => ({ peer: { kind: { mode, weights: 'f32' } }, tokens: 8, equalTokens: 8 })),
    );
    for (const { logitDifference } of report.correctness.peers) expect(logitDifference).toBeLessThan(1e-5);
    const json = reportJson(report) as { results: object[]; peers: object[] };
    expect(json.peers[1]).toMatchObject({
      name: 'pytorch',
      mode: 'compiled',
      weights: 'f32',
      release: '2.0.0+standin',
    });
    expect(json.results).toMatchObject([
      { engine: 'kloop', test: 'tg3', tokens: 3 },
      { engine: 'pytorch', mode: 'eager', test: 'tg3', tokens: 3 },
      { engine: 'pytorch', mode: 'compiled', test: 'tg3' },
      { engine: 'kloop', test: 'pp5' },
      { engine: 'pytorch', mode: 'eager', test: 'pp5', tokens: 5 },
      { engine: 'pytorch', mode: 'compiled', test: 'pp5' },
    ]);
    expect(report.results[0]?.ratioToPeer.get('pytorch')?.median).toBeGreaterThan(0);
    const rows = reportLines(report).filter((line) => line.startsWith('PyTorch'));
    expect(rows.map((row) => row.slice(0, 20).trim())).toEqual([...rowNames, ...rowNames]);
  });

  it('is refused where it computes something else', async () => {
    const directory = workspace.path('wrong');
    mkdirSync(directory);
    copyFileSync(join(found['PYTHONPATH']!, 'torch.py'), join(directory, 'torch.py'));
    const right = readFileSync(join(found['PYTHONPATH']!, 'transformers.py'), 'utf8');
    // Heads turned the other way.
    writeFileSync(join(directory, 'transformers.py'), right.replace('math.sin(angle)', '-math.sin(angle)'));
    await expect(bench({ ...found, PYTHONPATH: directory })).rejects.toThrow(
      /PyTorch makes another token at \d of 8, and its logits differ by 0\.\d+ of their range/,
    );
  });

  it.runIf(compiler !== undefined)('on a GPU, is held against float32 as well, and has no threads', async () => {
    const gpu = { ...backend, name: 'cuda' };
    const report = await bench({ ...found, STANDIN_CUDA: '1' }, { backend: gpu, depth: 8, promptTokens: 0 });
    expect(report.gates).toMatchObject([
      { identity: { engine: 'kloop', schedule: 'looped' }, gate: 'passed' },
      { identity: { engine: 'pytorch', mode: 'eager', threads: 1 }, gate: 'passed' },
      { identity: { engine: 'pytorch', mode: 'compiled', threads: 1 }, gate: 'passed' },
    ]);
    for (const { meanKl } of report.gates) expect(Math.abs(meanKl)).toBeLessThan(1e-6);
    expect(report.peers[0]?.system).toContain('stand-in');
  });

  it.runIf(compiler !== undefined)(
    'counts the memory that it takes of a GPU, and leaves out contexts for which there is too little',
    async () => {
      // Ours takes nothing here.
      const gpuWith = (free: number): Backend => ({ ...backend, name: 'cuda', memoryFor: () => ({ needed: 0, free }) });
      const options = { depth: 8, tokens: 3, promptTokens: 0 };
      const environment = { ...found, STANDIN_CUDA: '1' };
      await expect(bench(environment, { ...options, backend: gpuWith(2 ** 30) })).rejects.toThrow(
        /what is measured needs 1\.\d+ GB on the device, and 1\.07 GB are free/,
      );
      await expect(bench(environment, { ...options, backend: gpuWith(2 ** 30), peers: [] })).resolves.toBeDefined();
    },
  );

  it('tells what it lacks in one line: packages, a directory, a device', async () => {
    const program = fileURLToPath(new URL('../bench/peer/pytorch.py', import.meta.url));
    // Without the packages that are installed.
    const { status, stderr } = spawnSync('python3', ['-E', '-S', program, '--check'], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([1, 'python3 has no torch and no transformers\n']);
    const gguf = fileURLToPath(new URL('fixtures/gguf/mixed.gguf', import.meta.url));
    await expect(bench(found, { model: gguf })).rejects.toThrow(/PyTorch does not run .*mixed\.gguf, a GGUF file/);
    const cuda = { ...backend, name: 'cuda' };
    await expect(bench(found, { backend: cuda, depth: 8 })).rejects.toThrow(
      'PyTorch 2.0.0+standin finds no CUDA device',
    );
  });

  it('is not found without python3', async () => {
    const missing = bench({ ...found, PATH: workspace.directory });
    await expect(missing).rejects.toThrow(UsageError);
    await expect(missing).rejects.toThrow('python3 is not found');
  });
});
