/** NVRTC behind the same interface as nvcc: a stand-in of the library everywhere, the real one where it is. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makeFakeNvrtc } from '../../../tests/support/cuda/fake-driver.js';
import { Workspace } from '../../../tests/support/models.js';
import { meterSource } from './bandwidth.js';
import { findNvrtc, type CudaCompiler } from './compilers.js';
import { targets } from './target.js';
import { compileImage } from './toolchain.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());
const { directory, cacheDir } = workspace;
const missing = join(directory, 'libnothing.so');

const standIn = findNvrtc([missing, makeFakeNvrtc(directory, 'recent')])!;

function compile(compiler: CudaCompiler, source: string, target = 'sm_90', signal?: AbortSignal): Promise<string> {
  return compileImage({ source, target, cacheDir, compiler, ...(signal === undefined ? {} : { signal }) });
}

describe('a stand-in of NVRTC', () => {
  it('is found behind one that is not there, and not where it is too old', () => {
    expect(standIn).toMatchObject({ path: join(directory, 'recent.so'), version: 'NVRTC 13.7' });
    expect(findNvrtc([missing])).toBeUndefined();
    expect(findNvrtc([makeFakeNvrtc(directory, 'old', ['FAKE_MAJOR=11'])])).toBeUndefined();
  });

  it('is given the whole source and the machine, and its image is kept', async () => {
    const image = await compile(standIn, '#include "engine.cuh"\nlast line\n');
    const text = readFileSync(image, 'utf8');
    expect(text).toMatch(/^-std=c\+\+17\n-fmad=false\n-diag-suppress=177\n-arch=sm_90\n/);
    expect(text).toContain('struct counters {');
    expect(text).not.toContain('#include "');
    expect(text).toMatch(/\nlast line\n$/);
    expect(await compile(standIn, '#include "engine.cuh"\nlast line\n')).toBe(image);
    // Another compiler, another image.
    const next = findNvrtc([makeFakeNvrtc(directory, 'next', ['FAKE_MAJOR=14'])])!;
    expect(await compile(next, '#include "engine.cuh"\nlast line\n')).not.toBe(image);
  });

  it('says what was wrong', async () => {
    await expect(compile(standIn, '#error no such thing')).rejects.toThrow(
      /recent\.so could not compile the kernels: program\.cu\(1\): error: #error directive: no such thing; check .*NVRTC 13\.7/,
    );
    await expect(compile(standIn, '', 'sm_1')).rejects.toThrow(/error: NVRTC_ERROR_INVALID_OPTION/);
  });

  it('can be stopped', async () => {
    await expect(compile(standIn, 'anything', 'sm_90', AbortSignal.abort())).rejects.toThrow('compiling was stopped');
  });
});

describe('NVRTC itself', () => {
  const nvrtc = findNvrtc();
  it.each(targets.map(({ name }) => name))('compiles kernels for %s without a header of the host', async (target) => {
    if (nvrtc === undefined) {
      console.log(`skipped: there is no libnvrtc, so that kernels for ${target} were not compiled by it`);
      return;
    }
    const image = readFileSync(await compile(nvrtc, meterSource, target));
    // An ELF file for machine 190, a GPU.
    expect(image.subarray(0, 4).toString('latin1')).toBe('\x7fELF');
    expect(image.readUInt16LE(18)).toBe(190);
    expect(image.includes('read_once')).toBe(true);
    await expect(compile(nvrtc, `${meterSource}\n#error no such thing\n`, target)).rejects.toThrow(/error: .*no such/);
  });
});
