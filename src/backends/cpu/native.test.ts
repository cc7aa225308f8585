/** Generated programs under sanitizers, made by another compiler, and on the instruction set of another processor (emulated). */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildDriver, cannotBuild, driverCase, runDriver, type DriverCase } from '../../../tests/support/c-driver.js';
import { Workspace } from '../../../tests/support/models.js';
import { relativeError } from '../../../tests/support/steps.js';
import { chooseInstructionSet, instructionSets } from './instruction-set.js';
import { findCompiler } from './toolchain.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());

let llama: DriverCase;
let gemma2: DriverCase;
let qwen3: DriverCase;
/** One key/value head, over the border of two blocks: attention is divided by context. */
let long: DriverCase;
beforeAll(async () => {
  llama = await driverCase('llama', 'f32', workspace);
  gemma2 = await driverCase('gemma2', 'f16', workspace);
  qwen3 = await driverCase('qwen3', 'bf16', workspace);
  long = await driverCase('llama-tied', 'f32', workspace, 254);
});

const tolerance = { f32: 2e-3, narrow: 3e-2 };

describe('sanitizers', () => {
  // Without optimization, compiling takes three times as long: what is always inlined stays as it is.
  const sanitizers = [
    ['address and undefined behaviour', ['-Og', '-fsanitize=address,undefined', '-fno-sanitize-recover=all']],
    // Its only fence orders what is atomic anyway; the sanitizer knows no fences and says so.
    ['threads', ['-Og', '-fsanitize=thread', '-Wno-tsan']],
  ] as const;

  it('see a program that divides attention by context', () => {
    expect(long.source).toContain('context_chunks(me, 1, 2)');
  });

  it.for(sanitizers)('has nothing to report: %s', async ([, sanitize], context) => {
    const compiler = (await findCompiler())!.path;
    const reason = await cannotBuild(compiler, sanitize, workspace);
    if (reason !== undefined) context.skip(reason);
    const flags = ['-g', ...sanitize];
    for (const [test, instructionSet] of [
      [llama, chooseInstructionSet()],
      [qwen3, chooseInstructionSet('generic')],
      [long, chooseInstructionSet()],
    ] as const) {
      const driver = await buildDriver(test, { compiler, instructionSet, flags }, workspace);
      for (const threads of [1, 2, 3]) {
        const { logits, tokens } = await runDriver([driver], test, threads, workspace, 10);
        expect(relativeError(logits, test.expected.logits)).toBeLessThan(tolerance.narrow);
        expect(tokens).toEqual(test.expected.tokens);
      }
    }
  });
});

describe('clang', () => {
  const compiler = 'clang';

  it('agrees with the reference', async (context) => {
    const instructionSet = chooseInstructionSet();
    const reason = await cannotBuild(compiler, instructionSet.compilerFlags, workspace);
    if (reason !== undefined) context.skip(reason);
    for (const test of [llama, qwen3, long]) {
      const driver = await buildDriver(test, { compiler, instructionSet, flags: ['-O3'] }, workspace);
      const { logits, tokens } = await runDriver([driver], test, 2, workspace);
      expect(relativeError(logits, test.expected.logits)).toBeLessThan(tolerance.narrow);
      expect(tokens).toEqual(test.expected.tokens);
    }
  });
});

describe('NEON', () => {
  const compiler = 'aarch64-linux-gnu-gcc';
  const neon = instructionSets.find(({ name }) => name === 'neon')!;

  it('agrees with the reference', async (context) => {
    const runner = ['qemu-aarch64'];
    const reason = await cannotBuild(compiler, [...neon.compilerFlags, '-static'], workspace, runner);
    if (reason !== undefined) context.skip(reason);
    for (const [test, most] of [
      [llama, tolerance.f32],
      [gemma2, tolerance.narrow],
      [qwen3, tolerance.narrow],
    ] as const) {
      const driver = await buildDriver(test, { compiler, instructionSet: neon, flags: ['-static'] }, workspace);
      const one = await runDriver([...runner, driver], test, 1, workspace);
      expect(relativeError(one.logits, test.expected.logits)).toBeLessThan(most);
      expect(one.tokens).toEqual(test.expected.tokens);
      expect(await runDriver([...runner, driver], test, 3, workspace)).toEqual(one);
    }
  });
});
