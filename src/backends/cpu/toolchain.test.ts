/** Compilers that are missing, fail or run at the same time; packed weights that are broken, and places without room. */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { modelConfig, smallLimits, Workspace } from '../../../tests/support/models.js';
import { createQuickCpuBackend } from '../../../tests/support/quick-cpu.js';
import { packedWeightsFile, packTiles } from '../../checkpoint/packed.js';
import { openWeights, type Weights } from '../../checkpoint/weights.js';
import { writeSynthetic } from '../../checkpoint/synth.js';
import { compileModel } from '../../passes/pipeline.js';
import { f32ToBf16Array } from '../../util/float.js';
import { AbortedError, CheckpointError, StorageError, ToolchainError } from '../../util/errors.js';
import type { ExecutionPlan } from '../backend.js';
import { cpuCapabilities, createCpuBackend } from './index.js';
import { chooseInstructionSet, instructionSets } from './instruction-set.js';
import { loadShared } from './library.js';
import { compileLibrary, findCompiler, type CompileRequest } from './toolchain.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());
const config = modelConfig('llama');
let weights: Weights;
beforeAll(async () => {
  weights = await workspace.weights(config);
});

function planOf(): ExecutionPlan {
  return compileModel(config, { schedule: 'looped', limits: smallLimits, capabilities: cpuCapabilities() }).plan;
}

async function errorOf(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error('nothing was thrown');
}

/** A script that answers `--version`, and otherwise does this. */
function fakeCompiler(body: string): string {
  const path = workspace.path('cc');
  writeFileSync(path, `#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1.0; exit 0; fi\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

async function request(source: string, more: Partial<CompileRequest> = {}): Promise<CompileRequest> {
  const compiler = (await findCompiler())!;
  return { source, instructionSet: chooseInstructionSet('generic'), cacheDir: workspace.cacheDir, compiler, ...more };
}

/** A file system of its own; skips the test where that is not allowed. */
function mountSmall(context: TestContext, options: string): string {
  const mount = workspace.path('mount');
  mkdirSync(mount);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', mount], { stdio: 'ignore' });
  } catch {
    context.skip('mounting a small file system needs more rights');
  }
  return mount;
}

const tiny = 'int answer(void);\nint answer(void) { return 42; }\n';

describe('compiling', () => {
  it('says what to do where there is no compiler', async () => {
    const error = await errorOf(
      createCpuBackend({ compilerNames: ['no-such-cc'] }).prepare(planOf(), weights, { cacheDir: workspace.path('c') }),
    );
    expect(error).toBeInstanceOf(ToolchainError);
    expect(error.message).toMatch(/no C compiler.*install/);
  });

  it('takes the first compiler that answers', async () => {
    const fake = fakeCompiler('exit 1');
    expect(await findCompiler(['no-such-cc', fake])).toEqual({ path: fake, version: 'fake 1.0' });
    expect(await findCompiler(['no-such-cc'])).toBeUndefined();
  });

  it('passes on the first error of a failing compiler, in one line, and leaves nothing', async () => {
    const fake = fakeCompiler('echo "in file x:" >&2; echo "x.c:3: error: no such thing" >&2; echo "more" >&2; exit 1');
    const cacheDir = workspace.path('cache');
    const error = await errorOf(createCpuBackend({ compilerNames: [fake] }).prepare(planOf(), weights, { cacheDir }));
    expect(error).toBeInstanceOf(ToolchainError);
    expect(error.message).toContain('x.c:3: error: no such thing');
    expect(error.message).not.toContain('\n');
    expect(readdirSync(cacheDir).filter((name) => !name.startsWith('weights-'))).toEqual([]);
  });

  it('does without products of bfloat16 where the compiler is too old for them', async () => {
    // Of the real flags it knows none either, but takes them.
    const fake = fakeCompiler(
      'case "$*" in *-mavx512bf16*) echo "cc: error: unrecognized command-line option \'-mavx512bf16\'" >&2; exit 1;; esac\n' +
        'for simd; do case "$simd" in *KLOOP_SIMD*) echo "$simd" > "$(dirname "$0")/used";; esac; done\n' +
        'while [ "$1" != -o ]; do shift; done; exec cc -shared -fPIC -o "$2" "$3"',
    );
    const all = new Set(instructionSets.flatMap(({ needs }) => needs));
    if (process.arch !== 'x64') return;
    const newest = chooseInstructionSet(undefined, all);
    expect(newest.name).toBe('avx512_bf16');
    const compiler = { path: fake, version: 'too old' };
    const library = await compileLibrary(await request(tiny, { compiler, instructionSet: newest }));
    expect(loadShared(library)).toBeDefined();
    expect(readFileSync(join(fake, '..', 'used'), 'utf8')).toContain('simd_avx512.h');
  });

  it('tells a full disk from broken code', async () => {
    const compiler = {
      path: fakeCompiler('echo "cc: fatal error: out.s: No space left on device" >&2; exit 1'),
      version: '',
    };
    const error = await errorOf(compileLibrary(await request(tiny, { compiler })));
    expect(error).toBeInstanceOf(StorageError);
    expect(error.message).toMatch(/no space left/);
  });

  it('reports a compiler that dies silently', async () => {
    const compiler = { path: fakeCompiler('kill -9 $$'), version: '' };
    const error = await errorOf(compileLibrary(await request(tiny, { compiler })));
    expect(error).toBeInstanceOf(ToolchainError);
    expect(error.message).not.toContain('\n');
  });

  it('names a library by everything that went into it, and makes it once', async () => {
    const first = await compileLibrary(await request(tiny));
    const { mtimeMs } = statSync(first);
    expect(await compileLibrary(await request(tiny))).toBe(first);
    expect(statSync(first).mtimeMs).toBe(mtimeMs);
    const others = [
      await request(tiny.replace('42', '43')),
      await request(tiny, { extraFlags: ['-DX=1'] }),
      await request(tiny, { compiler: { path: 'cc', version: 'other' } }),
    ];
    const paths = await Promise.all(others.map((other) => compileLibrary(other)));
    expect(new Set([first, ...paths]).size).toBe(4);
  });

  it('serves requests at the same time', async () => {
    const same = await request(tiny.replace('42', '44'));
    const [a, b, c] = await Promise.all([compileLibrary(same), compileLibrary(same), compileLibrary(same)]);
    expect(a).toBe(b);
    expect(a).toBe(c);
    expect(readdirSync(workspace.cacheDir).filter((name) => name.includes('compile'))).toEqual([]);
  });

  it.each([
    ['empty', () => Buffer.alloc(0)],
    ['another kind of file', () => Buffer.from('no library'.repeat(100))],
    ['zeros', (whole: Buffer) => Buffer.alloc(whole.length)],
    ['cut off', (whole: Buffer) => whole.subarray(0, whole.length / 2)],
    ['cut off at the end', (whole: Buffer) => whole.subarray(0, whole.length - 1)],
  ])('makes a library again that is %s', async (name, broken) => {
    const wanted = await request(`${tiny}/* ${name} */\n`);
    const path = await compileLibrary(wanted);
    const whole = readFileSync(path);
    writeFileSync(path, broken(whole));
    expect(await Promise.all([compileLibrary(wanted), compileLibrary(wanted)])).toEqual([path, path]);
    expect(readFileSync(path).equals(whole)).toBe(true);
    const { ino } = statSync(path);
    await compileLibrary(wanted);
    expect(statSync(path).ino).toBe(ino);
  });

  it('names a library that cannot be loaded', () => {
    const path = workspace.path('kernels.so');
    writeFileSync(path, 'no library');
    expect(() => loadShared(path)).toThrow(ToolchainError);
    expect(() => loadShared(path)).toThrow(`${path}: cannot load the compiled kernels: `);
  });

  it('stops where the caller does', async () => {
    const compiler = { path: fakeCompiler('sleep 20'), version: '' };
    const controller = new AbortController();
    const compiling = compileLibrary(await request(tiny, { compiler, signal: controller.signal }));
    setTimeout(() => controller.abort(), 50);
    expect(await errorOf(compiling)).toBeInstanceOf(AbortedError);
  });

  it('gives one StorageError where the cache is not a directory', async () => {
    const file = workspace.path('file');
    writeFileSync(file, '');
    for (const cacheDir of [file, join(file, 'below')]) {
      const error = await errorOf(createCpuBackend().prepare(planOf(), weights, { cacheDir }));
      expect(error).toBeInstanceOf(StorageError);
      expect(error.message).toContain(file);
    }
  });
});

describe('packTiles', () => {
  /** Element (row, column) at its place, one after the other. */
  function slowly(elements: ArrayLike<number>, rows: number, columns: number, pairs: boolean): number[] {
    const [tiles, padded] = [Math.ceil(rows / 16), columns + (columns % 2)];
    const result = new Array<number>(tiles * 16 * padded).fill(0);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const tile = Math.floor(row / 16) * 16 * padded;
        const place = pairs ? Math.floor(column / 2) * 32 + (row % 16) * 2 + (column % 2) : column * 16 + (row % 16);
        result[tile + place] = elements[row * columns + column]!;
      }
    }
    return result;
  }

  it.each([
    [1, 1],
    [16, 2],
    [17, 5],
    [40, 33],
    [3, 64],
  ])('puts %i rows of %i columns where the kernels read them', (rows, columns) => {
    const words = Uint32Array.from({ length: rows * columns }, (_, i) => i + 1);
    const halves = Uint16Array.from({ length: rows * columns }, (_, i) => i + 1);
    // At an odd place of its buffer, as parts of files are.
    const moved = new Uint8Array(halves.byteLength + 2);
    moved.set(new Uint8Array(halves.buffer), 2);
    const f32 = packTiles(new Uint8Array(words.buffer), rows, columns, 'f32');
    expect([...new Uint32Array(f32.buffer)]).toEqual(slowly(words, rows, columns, false));
    for (const [dtype, pairs] of [
      ['f16', false],
      ['bf16', true],
    ] as const) {
      const packed = packTiles(moved.subarray(2), rows, columns, dtype);
      expect([...new Uint16Array(packed.buffer)]).toEqual(slowly(halves, rows, columns, pairs));
    }
  });
});

describe('the packed file', () => {
  const packed = (cacheDir: string): Promise<string> => packedWeightsFile(planOf().step, weights, { cacheDir });

  it('is made once and used again', async () => {
    const cacheDir = workspace.path('cache');
    const path = await packed(cacheDir);
    const { mtimeMs, ino } = statSync(path);
    expect(await packed(cacheDir)).toBe(path);
    expect(statSync(path)).toMatchObject({ mtimeMs, ino });
    expect(readdirSync(cacheDir)).toHaveLength(1);
  });

  it('is made again where it has another length', async () => {
    const path = await packed(workspace.path('cache'));
    const whole = readFileSync(path);
    for (const length of [0, whole.length - 1, whole.length + 1]) {
      truncateSync(path, length);
      await packed(join(path, '..'));
      expect(readFileSync(path).equals(whole)).toBe(true);
    }
  });

  it('has every vector and matrix where its placement says', async () => {
    const { step } = planOf();
    const file = readFileSync(await packed(workspace.path('cache')));
    for (const { tensor, origin } of step.values) {
      if (origin.kind !== 'checkpoint' || origin.placement === undefined) continue;
      const [rows, columns] = tensor.shape as readonly number[];
      const data = weights.read(origin.tensor, 0, rows!);
      const expected = columns === undefined ? data : packTiles(data, rows!, columns, tensor.dtype);
      const { offset, bytes } = origin.placement;
      expect(file.subarray(offset, offset + bytes).equals(expected), origin.tensor).toBe(true);
    }
  });

  it('leaves nothing behind where making it is stopped', async () => {
    const cacheDir = workspace.path('cache');
    const controller = new AbortController();
    const onProgress = (): void => controller.abort();
    const packing = packedWeightsFile(planOf().step, weights, { cacheDir, signal: controller.signal, onProgress });
    expect(await errorOf(packing)).toBeInstanceOf(AbortedError);
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  it('refuses weights that are not finite, by name', async () => {
    const directory = workspace.path('nan');
    await writeSynthetic(config, directory);
    const file = join(directory, 'model.safetensors');
    const bytes = readFileSync(file);
    const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString()) as Record<
      string,
      { data_offsets: [number, number] }
    >;
    const name = 'model.layers.1.mlp.up_proj.weight';
    const start = 8 + Number(bytes.readBigUInt64LE()) + header[name]!.data_offsets[0];
    bytes.writeFloatLE(NaN, start + 4 * 123);
    writeFileSync(file, bytes);
    const broken = openWeights(directory);
    const cacheDir = workspace.path('cache');
    const error = await errorOf(packedWeightsFile(planOf().step, broken, { cacheDir }));
    broken.close();
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toContain(`${JSON.stringify(name)} is not finite at element 123`);
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  it('converts to the format that was asked for', async () => {
    const cacheDir = workspace.path('cache');
    const { plan } = compileModel(config, {
      schedule: 'looped',
      limits: smallLimits,
      weightFormat: 'bf16',
      capabilities: cpuCapabilities(),
    });
    const file = readFileSync(await packedWeightsFile(plan.step, weights, { cacheDir }));
    const { origin } = plan.step.values.find(({ name }) => name === 'w_head')!;
    const { vocab, hidden } = config;
    const rounded = f32ToBf16Array(weights.readF32('lm_head.weight', 0, vocab));
    const expected = packTiles(new Uint8Array(rounded.buffer), vocab, hidden, 'bf16');
    const { offset, bytes } = origin.kind === 'checkpoint' ? origin.placement! : { offset: 0, bytes: 0 };
    expect(file.subarray(offset, offset + bytes).equals(expected)).toBe(true);
  });

  it('gives one StorageError on a full disk, and leaves nothing', async (context) => {
    // One page short of the whole file, and far too small.
    const { size } = statSync(await packed(workspace.path('cache')));
    for (const bytes of [Math.floor((size - 1) / 4096) * 4096, 65_536]) {
      const mount = mountSmall(context, `size=${bytes}`);
      try {
        const error = await errorOf(packed(mount));
        expect(error).toBeInstanceOf(StorageError);
        expect(error.message).toMatch(/no space left/);
        expect(readdirSync(mount)).toEqual([]);
        const both = await errorOf(createQuickCpuBackend().prepare(planOf(), weights, { cacheDir: mount }));
        expect(both).toBeInstanceOf(StorageError);
        // A library that is whole may stay.
        expect(readdirSync(mount).filter((name) => !/^kernels-\w+\.so$/.test(name))).toEqual([]);
      } finally {
        execFileSync('umount', [mount]);
      }
    }
  });

  it('gives one StorageError where the file system is read-only', async (context) => {
    const mount = mountSmall(context, 'size=64k,ro');
    try {
      const error = await errorOf(createQuickCpuBackend().prepare(planOf(), weights, { cacheDir: mount }));
      expect(error).toBeInstanceOf(StorageError);
      expect(error.message).toMatch(/read-only/);
    } finally {
      execFileSync('umount', [mount]);
    }
  });
});

describe('processes at the same time', () => {
  it('share a cache that both of them fill', async () => {
    const directory = workspace.path('shared-model');
    await writeSynthetic(config, directory);
    const cacheDir = workspace.path('shared-cache');
    const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
    const args = [
      'run',
      directory,
      '--prompt',
      'ab',
      '--max-tokens',
      '4',
      '--json',
      '--backend',
      'cpu',
      '--threads',
      '1',
    ];
    const runOne = (): Promise<{ code: number | null; text: string; errors: string }> =>
      new Promise((resolve) => {
        const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, XDG_CACHE_HOME: cacheDir } });
        let [text, errors] = ['', ''];
        child.stdout.on('data', (data: Buffer) => (text += data.toString()));
        child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
        child.on('close', (code) => resolve({ code, text, errors }));
      });
    const [first, second] = await Promise.all([runOne(), runOne()]);
    expect(first.code, first.errors).toBe(0);
    expect(second.code, second.errors).toBe(0);
    const tokens = ({ text }: { text: string }): unknown => (JSON.parse(text) as { tokens: unknown }).tokens;
    expect(tokens(first)).toEqual(tokens(second));
    const files = readdirSync(join(cacheDir, 'kloop'));
    expect(files.filter((name) => name.startsWith('weights-'))).toHaveLength(1);
    expect(files.filter((name) => name.startsWith('kernels-'))).toHaveLength(1);
    expect(files).toHaveLength(2);
  });
});
