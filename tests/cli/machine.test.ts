import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findCudaCompiler } from '../../src/backends/cuda/compilers.js';
import { linesOf, runCli, type CliResult } from '../support/cli.js';
import { writeTinyModel, type TinyModel } from '../support/tiny-model.js';

describe('machines that lack something', () => {
  let model: TinyModel;
  let directory: string;
  beforeAll(async () => {
    model = await writeTinyModel();
    directory = mkdtempSync(join(tmpdir(), 'kloop-machine-'));
  });
  afterAll(() => {
    model.remove();
    rmSync(directory, { recursive: true, force: true });
  });

  const run = (args: readonly string[], env: Readonly<Record<string, string>>): Promise<CliResult> =>
    runCli(['run', model.path, '--prompt', 'x', '--max-tokens', '4', ...args], { env });

  it('without a compiler the reference backend runs, with a notice', async () => {
    const { code, stdout, stderr } = await run(['--json'], { PATH: '' });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ backend: 'reference' });
    expect(stderr).toMatch(/^kloop: no C compiler found[^\n]*\n$/);
  });

  it('without a compiler doctor does not say that there are kernels', async () => {
    const { code, stdout } = await runCli(['doctor'], { env: { PATH: '' } });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^! {3}compiler +none \(without one/m);
    expect(stdout).toMatch(/^ok {2}kernels use +\w+, once there is a compiler$/m);
  });

  it('without a compiler the CPU backend says what to install', async () => {
    const { code, stdout, stderr } = await run(['--backend', 'cpu'], { PATH: '' });
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^kloop: there is no C compiler[^\n]*install[^\n]*\n$/);
  });

  it('with a compiler that fails', async () => {
    const compiler = join(directory, 'cc');
    writeFileSync(
      compiler,
      '#!/bin/sh\ntest "$1" = --version && echo "cc 1.0" && exit 0\necho "error: no" >&2\nexit 1\n',
    );
    chmodSync(compiler, 0o755);
    const env = { PATH: `${directory}:/usr/bin:/bin`, XDG_CACHE_HOME: join(directory, 'cache') };
    const { code, stdout, stderr } = await run(['--backend', 'cpu'], env);
    expect([code, stdout]).toEqual([1, '']);
    expect(linesOf(stderr)).toHaveLength(1);
    expect(stderr).toMatch(/^kloop: cc could not compile the kernels: error: no; /);
  });

  it('with a cache that cannot be written', async () => {
    writeFileSync(join(directory, 'file'), '');
    const { code, stdout, stderr } = await run(
      ['--backend', 'cpu', '--cache-dir', join(directory, 'file', 'cache')],
      {},
    );
    expect([code, stdout]).toEqual([1, '']);
    expect(linesOf(stderr)).toHaveLength(1);
    expect(stderr).toMatch(/^kloop: .*file\/cache.*; choose another cache, with --cache-dir or XDG_CACHE_HOME$/m);
    const calibrated = await runCli(['calibrate', '--output', join(directory, 'file', 'host.json')]);
    expect([calibrated.code, calibrated.stdout]).toEqual([1, '']);
    expect(calibrated.stderr).toBe(
      `kloop: ${join(directory, 'file', 'host.json')}: a part of the path is not a directory; choose a place you can write to\n`,
    );
  });

  it('writes a synthetic checkpoint, and nothing over what is there', async () => {
    const out = join(directory, 'synthetic');
    const args = ['synth', 'tinystories-15m', '--layers', '1', '--dtype', 'bf16', '--out', out];
    const first = await runCli(args);
    expect([first.code, first.stdout]).toEqual([0, '']);
    expect(existsSync(join(out, 'model.safetensors'))).toBe(true);
    const second = await runCli(args);
    expect([second.code, second.stdout]).toEqual([1, '']);
    expect(second.stderr).toMatch(/^kloop: [^\n]*is not empty[^\n]*\n$/);
  });

  it('doctor names a GPU, and what compiles for it', async () => {
    const tools = join(directory, 'tools');
    mkdirSync(tools);
    const smi = join(tools, 'nvidia-smi');
    writeFileSync(smi, '#!/bin/sh\necho "NVIDIA H200, 143771 MiB, 580.0"\n');
    chmodSync(smi, 0o755);
    const { code, stdout } = await runCli(['doctor', '--json'], { env: { PATH: `${tools}:${process.env.PATH}` } });
    expect(code).toBe(0);
    const { gpu, cuda_compiler: compiler } = JSON.parse(stdout) as Record<string, unknown>;
    expect(gpu).toEqual(['NVIDIA H200, 143771 MiB, 580.0']);
    const found = await findCudaCompiler();
    expect(compiler).toEqual(found === undefined ? null : { path: found.path, version: found.version });
  });
});
