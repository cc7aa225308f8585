/**
 * The C that is generated, read by people when it changes: UPDATE_GOLDEN=1 writes the files anew, anything else compares.
 * Every golden file is also compiled, with warnings as errors, by the tests that run the same programs.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { emitPrograms } from '../../src/backends/cpu/emit/program.js';
import { instructionSets } from '../../src/backends/cpu/instruction-set.js';
import { findCompiler } from '../../src/backends/cpu/toolchain.js';
import type { Program } from '../../src/ir/program.js';
import { compileModel } from '../../src/passes/pipeline.js';
import { modelConfig, smallLimits, type ModelName } from '../support/models.js';

const support = fileURLToPath(new URL('../../src/backends/cpu/support/', import.meta.url));
// What a machine has must not show in a golden file.
const capabilities = { memories: [{ name: 'L2', bytes: 1 << 20 }], tileBytes: 4096, defaultWorkers: 2 };

function programs(name: ModelName, schedule: 'looped' | 'response'): readonly Program[] {
  const config = modelConfig(name, 'f32', { num_hidden_layers: name === 'gemma2' ? 4 : 2 });
  const { plan } = compileModel(config, { schedule, limits: smallLimits, capabilities, responseTokens: 4 });
  return plan.response === undefined ? [plan.step] : [plan.step, plan.response];
}

describe.each([
  ['llama', 'looped'],
  ['llama', 'response'],
  ['gemma2', 'looped'],
  ['gemma2', 'response'],
] as const)('%s, %s', (name, schedule) => {
  const path = fileURLToPath(new URL(`${name}-${schedule}.c`, import.meta.url));

  it('is emitted as the golden file has it, every time', () => {
    const { source } = emitPrograms(programs(name, schedule));
    expect(emitPrograms(programs(name, schedule)).source).toBe(source);
    if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(path, source);
    expect(existsSync(path), `${path} is missing; npm run golden:update makes it`).toBe(true);
    expect(source).toBe(readFileSync(path, 'utf8'));
  });

  it('compiles without warnings, in plain C', async () => {
    const compiler = (await findCompiler())!.path;
    const generic = instructionSets.find((set) => set.name === 'generic')!;
    const flags = ['-std=gnu11', '-Og', '-Wall', '-Wextra', '-Werror', '-c', '-o', '/dev/null', ...generic.compilerFlags];
    execFileSync(compiler, [...flags, '-DKLOOP_SIMD="simd_generic.h"', `-I${support}`, path]);
  });
});

it('has nothing of a model in it but numbers', () => {
  const config = modelConfig('llama', 'f32');
  const hostile = { ...config, name: '*/ int main(void) { return 0; } /*"; system("x");' };
  const options = { schedule: 'looped', limits: smallLimits, capabilities } as const;
  const plain = emitPrograms([compileModel(config, options).plan.step]).source;
  expect(emitPrograms([compileModel(hostile, options).plan.step]).source).toBe(plain);
  expect(plain).not.toMatch(/model\.|weight"|self_attn|embed_tokens/);
});
