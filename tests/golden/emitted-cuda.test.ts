/**
 * The CUDA C++ that is generated, read by people when it changes: UPDATE_GOLDEN=1 writes the files anew, anything else
 * compares. Where nvcc is, each is compiled for every machine that there is a description of.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { findNvcc } from '../../src/backends/cuda/compilers.js';
import { emitPrograms, inlineHeaders } from '../../src/backends/cuda/emit/program.js';
import { targets } from '../../src/backends/cuda/target.js';
import { compileImage } from '../../src/backends/cuda/toolchain.js';
import type { DType, Program, Schedule } from '../../src/ir/program.js';
import { compileModel } from '../../src/passes/pipeline.js';
import { modelConfig, smallLimits, type ModelName } from '../support/models.js';

const nvcc = await findNvcc();
const cacheDir = mkdtempSync(join(tmpdir(), 'kloop-cuda-'));
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

// A machine of 132 multiprocessors, whatever is here.
const capabilities = { memories: [{ name: 'shared memory', bytes: 227 << 10 }], tileBytes: 16384, defaultWorkers: 132 };

/** Matrices of one format, or of all that there are. */
type Format = 'f32' | 'bf16' | 'mixed';

function formatOf(tensor: string): DType {
  if (/[qk]_proj/.test(tensor)) return 'q8_0';
  if (/o_proj|mlp/.test(tensor)) return 'q4_0';
  return tensor.includes('v_proj') ? 'f32' : 'bf16';
}

function programs(name: ModelName, schedule: Schedule, format: Format): readonly Program[] {
  const config = modelConfig(name, 'f32', { num_hidden_layers: 2 });
  const formats = format === 'mixed' ? { formatOf } : { weightFormat: format };
  // As many rows as tensor cores want, where there are matrices for them.
  const limits = { ...smallLimits, rows: format === 'f32' ? 8 : 32 };
  const options = { schedule, limits, capabilities, responseTokens: 4, ...formats };
  const { plan } = compileModel(config, options);
  return plan.response === undefined ? [plan.step] : [plan.step, plan.response];
}

const sm90 = targets.find(({ name }) => name === 'sm_90')!;

describe.each([
  ['qwen3', 'looped', 'bf16'],
  ['llama', 'response', 'f32'],
  ['mistral', 'looped', 'mixed'],
  ['llama', 'operator', 'bf16'],
] as const)('%s, %s, %s', (name, schedule, format) => {
  const path = fileURLToPath(new URL(`${name}-${schedule}.cu`, import.meta.url));

  it('is emitted as the golden file has it, every time', () => {
    const { source } = emitPrograms(programs(name, schedule, format), sm90);
    expect(emitPrograms(programs(name, schedule, format), sm90).source).toBe(source);
    if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(path, source);
    expect(existsSync(path), `${path} is missing; npm run golden:update makes it`).toBe(true);
    expect(source).toBe(readFileSync(path, 'utf8'));
  });
});

describe('compiled by nvcc', () => {
  const cases = [
    ['qwen3', 'looped', 'bf16', 'sm_80'],
    ['llama', 'response', 'f32', 'sm_89'],
    ['mistral', 'looped', 'mixed', 'sm_90'],
  ] as const;
  it.each(cases)('%s, %s, %s, for %s', async (name, schedule, format, target) => {
    if (nvcc === undefined) {
      console.log(`skipped: there is no nvcc, so that kernels for ${target} were not compiled`);
      return;
    }
    const machine = targets.find((candidate) => candidate.name === target)!;
    const { source } = emitPrograms(programs(name, schedule, format), machine);
    const image = await compileImage({ source, target, cacheDir, compiler: nvcc });
    // A cubin is an ELF file for machine 190.
    expect(readFileSync(image).subarray(0, 4).toString('latin1')).toBe('\x7fELF');
    expect(readFileSync(image).readUInt16LE(18)).toBe(190);
    expect(await compileImage({ source, target, cacheDir, compiler: nvcc })).toBe(image);
  });
});

it('waits for the kernel before it where machines begin kernels early, and only there', () => {
  if (nvcc === undefined) {
    console.log('skipped: there is no nvcc, so that griddepcontrol was not looked for');
    return;
  }
  // Kernels of two operators are enough.
  const source = join(cacheDir, 'early.cu');
  const [program] = programs('llama', 'operator', 'f32');
  const short = { ...program!, kernels: program!.kernels.filter(({ name }) => /norm|add/.test(name)) };
  const calls = program!.calls.filter(({ kernel }) => short.kernels.some(({ name }) => name === kernel));
  const emitted = emitPrograms([{ ...short, calls }], sm90);
  writeFileSync(source, inlineHeaders(emitted.source));
  const kernels = short.kernels.length;
  expect(kernels).toBeGreaterThan(2);
  for (const [target, times] of [
    ['sm_80', 0],
    ['sm_90', kernels],
  ] as const) {
    const flags = nvcc.flags(target).filter((flag) => flag !== '-cubin');
    execFileSync(nvcc.path, [...flags, '-ptx', '-o', `${source}.ptx`, source]);
    const ptx = readFileSync(`${source}.ptx`, 'utf8');
    expect(ptx.match(/griddepcontrol\.wait;/g) ?? [], target).toHaveLength(times);
    expect(ptx.match(/griddepcontrol\.launch_dependents;/g) ?? [], target).toHaveLength(times);
  }
});

it('has nothing of a model in it but numbers', () => {
  const config = modelConfig('llama', 'f32');
  const hostile = { ...config, name: '*/ int main(void) { return 0; } /*"; system("x");' };
  const options = { schedule: 'looped', limits: smallLimits, capabilities } as const;
  const plain = emitPrograms([compileModel(config, options).plan.step], sm90).source;
  expect(emitPrograms([compileModel(hostile, options).plan.step], sm90).source).toBe(plain);
  expect(plain).not.toMatch(/model\.|weight"|self_attn|embed_tokens/);
});
