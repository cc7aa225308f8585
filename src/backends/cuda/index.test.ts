/** The cuda backend beyond what all backends share: machines that lack something, faults, half precision, races. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { afterAll, describe, expect, it } from 'vitest';
import { hostCompiler, hostSource, makeFakeDriver, type FakeMachine } from '../../../tests/support/cuda/fake-driver.js';
import { modelConfig, smallLimits, Workspace, type ModelName } from '../../../tests/support/models.js';
import { generate, greedy, logitsOfAll, promptOf, relativeError, stepOf, trace } from '../../../tests/support/steps.js';
import { tileBytesOf } from '../../ir/packed-layout.js';
import type { DType, Schedule } from '../../ir/program.js';
import { allowedWords } from '../../ops/sample.js';
import { compileModel, type CompiledModel } from '../../passes/pipeline.js';
import type { Backend, PrepareOptions } from '../backend.js';
import { referenceBackend } from '../reference/index.js';
import { findNvcc, type CudaCompiler } from './compilers.js';
import { CudaDriver } from './driver.js';
import { emitPrograms, supportText } from './emit/program.js';
import { sliceBytesOf } from './emit/ring-writer.js';
import { formatBytes } from '../../util/units.js';
import { createCudaBackend, type CudaOptions } from './index.js';
import { launchAttribute, launchConfig, streamSerialization } from './launch-config.js';
import { countersLayout, launchAfter, launchBytes, launchNumbers, mailboxWords, troubleTold } from './setup.js';
import { hostTarget, layoutFor, maxKvHeads, targetFor, targets } from './target.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());
const { cacheDir } = workspace;

function fakeDriver(name: string, different: Partial<FakeMachine> = {}): string {
  return makeFakeDriver(workspace.directory, name, different);
}

const plainDriver = fakeDriver('plain');

function backendWith(options: CudaOptions = {}): Backend {
  return createCudaBackend({ driverPath: plainDriver, compiler: hostCompiler, target: hostTarget, ...options });
}

function compiled(
  name: ModelName,
  dtype: 'f32' | 'bf16',
  schedule: Schedule,
  backend: Backend,
  limits = smallLimits,
): CompiledModel {
  const { capabilities } = backend;
  return compileModel(modelConfig(name, dtype), { schedule, limits, capabilities, responseTokens: 4 });
}

/** Contexts, modules, streams and graphs of a driver that nobody has given back. */
function heldBy(driverPath: string): number {
  const count = new Int32Array(1);
  koffi.load(driverPath).func('int fake_held(void *count)')(count);
  return count[0]!;
}

async function prepared(backend: Backend, name: ModelName = 'llama', dtype: 'f32' | 'bf16' = 'f32') {
  const weights = await workspace.weights(modelConfig(name, dtype));
  return backend.prepare(compiled(name, dtype, 'response', backend).plan, weights, { cacheDir });
}

describe('machines that lack something', () => {
  it('says that there is no driver', () => {
    const missing = join(workspace.directory, 'libnothing.so');
    expect(() => createCudaBackend({ driverPath: missing })).toThrow(/there is no CUDA driver .*use --backend cpu/s);
  });

  it('says that there is no device', () => {
    expect(() => backendWith({ driverPath: fakeDriver('none', { devices: 0 }) })).toThrow(/has 0 devices/);
    expect(() => backendWith({ ordinal: 3 })).toThrow(/1 devices, and device 3 is not one/);
  });

  it('says that the device is too old', () => {
    const old = createCudaBackend.bind(undefined, { driverPath: fakeDriver('old', { major: 7 }) });
    expect(old).toThrow(/compute capability 7\.0 and 232 kB .*, and kernels are made for sm_80 \(167 kB\), .*sm_90/);
  });

  it('says that it has too little shared memory, or launches no kernels whose blocks wait for each other', () => {
    const small = { driverPath: fakeDriver('shared', { major: 8, minor: 6, sharedBytes: 64 << 10 }) };
    expect(() => createCudaBackend(small)).toThrow(/8\.6 and 65\.5 kB of shared memory for a block, and kernels/);
    const alone = { driverPath: fakeDriver('alone', { cooperative: 0 }) };
    expect(() => createCudaBackend(alone)).toThrow(
      /launches no kernels whose blocks wait for each other.*--backend cpu/s,
    );
  });

  it('says how much memory is needed, and how much there is', async () => {
    const backend = backendWith({ driverPath: fakeDriver('small', { freeBytes: 100_000 }) });
    await expect(prepared(backend)).rejects.toThrow(
      /needs .* on the GPU \([\d.]+ kB of weights, [\d.]+ kB of KV cache, [\d.]+ kB of work space\), and .* are free.*shorter --context/,
    );
    // The same is said of a plan before anything is compiled or packed.
    const memory = backend.memoryFor!(compiled('llama', 'f32', 'response', backend).plan);
    expect(memory.free).toBe(100_000);
    const needed = formatBytes(memory.needed).replace('.', '\\.');
    await expect(prepared(backend)).rejects.toThrow(
      new RegExp(`needs ${needed} on the GPU .* and 100(?:\\.0)? kB are`),
    );
  });

  it('takes nothing where it does not get everything', async () => {
    // Enough in all, and no piece that is large enough for the weights, which come third.
    const driverPath = fakeDriver('pieces', { largestPiece: 200_000 });
    const driver = new CudaDriver(driverPath);
    const before = driver.freeBytes();
    await expect(prepared(backendWith({ driverPath }))).rejects.toThrow(/needs .* of KV cache.*are free/);
    expect(driver.freeBytes()).toBe(before);
  });

  it('says what the compiler said', async () => {
    const broken: CudaCompiler = { ...hostCompiler, textOf: () => '#error "no such thing"\n' };
    await expect(prepared(backendWith({ compiler: broken }))).rejects.toThrow(/could not compile the kernels.*no such/);
  });

  it('says that there is no compiler', async () => {
    expect(await findNvcc([join(workspace.directory, 'no-such-nvcc')])).toBeUndefined();
  });
});

describe('what is asked for', () => {
  it('is refused where it is another number of multiprocessors', async () => {
    const backend = backendWith();
    const weights = await workspace.weights(modelConfig('llama'));
    const { plan } = compiled('llama', 'f32', 'looped', backend);
    await expect(backend.prepare(plan, weights, { cacheDir, threads: 2 })).rejects.toThrow(
      /its 3 multiprocessors, not on 2/,
    );
  });

  it('gets the bandwidth of the memory measured', async () => {
    const driverPath = fakeDriver('narrow', { freeBytes: 5 << 20, multiprocessors: 1 });
    const meter = await backendWith({ driverPath }).openBandwidthMeter!(cacheDir);
    expect(meter.bytes).toBe(2 << 20);
    expect(meter.measure()).toBeGreaterThan(0);
    meter.close();
    expect(heldBy(driverPath)).toBe(0);
    const full = backendWith({ driverPath: fakeDriver('full', { freeBytes: 1 << 20 }) });
    await expect(full.openBandwidthMeter!(cacheDir)).rejects.toThrow(
      /no memory to measure the bandwidth of: 1\.05 MB are/,
    );
  });

  it('leaves nothing behind where there is no piece of memory to measure', async () => {
    const driverPath = fakeDriver('crumbs', { freeBytes: 5 << 20, largestPiece: 1 << 20 });
    await expect(backendWith({ driverPath }).openBandwidthMeter!(cacheDir)).rejects.toThrow(/OUT_OF_MEMORY/);
    expect(heldBy(driverPath)).toBe(0);
    expect(new CudaDriver(driverPath).freeBytes()).toBe(5 << 20);
  });
});

describe('a kernel that waits for ever', () => {
  it('is ended, and says what it waited for', async () => {
    const driverPath = fakeDriver('loses', { fault: 1 });
    const executable = await prepared(backendWith({ driverPath }));
    const running = generate(executable, { prompt: [1] }, 2);
    await expect(running).rejects.toThrow(
      /waited too long: block [01] at the hand-off of response\/token, stage embed, 2 of 3/,
    );
    // The context is lost: the same error again, and closing still works.
    await expect(generate(executable, { prompt: [1] }, 1)).rejects.toThrow(/waited too long/);
    await executable.close();
    expect(heldBy(driverPath)).toBe(0);
  });

  it('is ended where weights never come', async () => {
    const executable = await prepared(backendWith({ driverPath: fakeDriver('keeps', { fault: 2 }) }));
    await expect(generate(executable, { prompt: [1] }, 2)).rejects.toThrow(
      /waited too long: block [012] for weights in slot 0 of the \d+ of its ring/,
    );
    await executable.close();
  });
});

describe('tokens of a response', () => {
  it('reach the host while the kernel runs, which can stop it', async () => {
    const backend = backendWith();
    const weights = await workspace.weights(modelConfig('llama'));
    const options = { schedule: 'response', limits: smallLimits, capabilities: backend.capabilities } as const;
    const { plan } = compileModel(modelConfig('llama'), { ...options, responseTokens: 60 });
    const executable = await backend.prepare(plan, weights, { cacheDir });
    const row = { token: 1, position: 0, sample: { ...greedy, remaining: 60 } };
    const whole = await executable.run(stepOf([row], { steps: 60 }));
    expect(whole.tokens[0]).toHaveLength(60);
    const { kernelCalls } = executable.counters;
    await executable.reset();
    const told: number[] = [];
    const stopped = await executable.run(stepOf([row], { steps: 60 }), (_, token) => {
      told.push(token);
      if (told.length === 2) executable.abort();
    });
    // One call for all 60; only a token that came while it ran can have ended it.
    expect(executable.counters.kernelCalls - kernelCalls).toBe(1);
    expect(stopped.tokens[0]!.length).toBeLessThan(60);
    expect(stopped.tokens[0]).toEqual(told);
    expect(told).toEqual(whole.tokens[0]!.slice(0, told.length));
    await executable.close();
  });
});

describe('kernels of a graph', () => {
  interface Run extends Pick<PrepareOptions, 'launches'> {
    readonly driverPath: string;
    readonly compiler?: CudaCompiler;
  }

  /** Launches that a driver has captured so far: all, and those that may begin before the one ahead of them has ended. */
  function capturedBy(driverPath: string): [number, number] {
    const [all, early] = [new Int32Array(1), new Int32Array(1)];
    koffi.load(driverPath).func('int fake_captured(void *all, void *early)')(all, early);
    return [all[0]!, early[0]!];
  }

  /** A prompt of two tokens, and four steps after it, under the operator schedule: one graph for two rows, and one for a row. */
  async function operatorRun({ driverPath, launches = 'graph', ...options }: Run) {
    const backend = backendWith({ driverPath, ...options });
    const weights = await workspace.weights(modelConfig('llama'));
    const { plan } = compiled('llama', 'f32', 'operator', backend);
    const executable = await backend.prepare(plan, weights, { cacheDir, launches });
    try {
      const before = capturedBy(driverPath);
      const { tokens } = await generate(executable, { prompt: [1, 2] }, 4);
      const [all, early] = capturedBy(driverPath).map((count, index) => count - before[index]!);
      return { tokens, all, early, calls: plan.step.calls.length, made: executable.counters.kernelCalls };
    } finally {
      await executable.close();
    }
  }

  it('begin early where the device has that, are launched one by one where that is asked for, and give the same tokens', async () => {
    const recent = await operatorRun({ driverPath: plainDriver });
    const { calls } = recent;
    // The first call has nothing before it, and the sampler's blocks wait for each other.
    expect(recent).toMatchObject({ all: 2 * calls, early: 2 * (calls - 2), made: 5 * calls });
    const old = await operatorRun({ driverPath: fakeDriver('eight', { major: 8 }) });
    expect(old).toEqual({ ...recent, early: 0 });
    expect(await operatorRun({ driverPath: plainDriver, launches: 'single' })).toEqual({ ...old, all: 0 });
  });

  it('leave nothing behind where nothing can be made of them', async () => {
    const driverPath = fakeDriver('graphless', { fault: 3 });
    await expect(operatorRun({ driverPath })).rejects.toThrow(/cuGraphInstantiateWithFlags/);
    expect(heldBy(driverPath)).toBe(0);
  });

  it('must wait for those before them, which the stand-in would see', async () => {
    const wait = '  wait_for_prerequisites();\n';
    expect(hostSource('#include "engine.cuh"\n').split(wait)).toHaveLength(2);
    const careless = { ...hostCompiler, textOf: (source: string) => hostSource(source).replace(wait, '') };
    await expect(operatorRun({ driverPath: fakeDriver('strict'), compiler: careless })).rejects.toThrow(
      /a kernel that began early did not wait for the one before it/,
    );
  });
});

/** Enough for tensor cores. */
const manyRows = { ...smallLimits, rows: 20 };

describe.each(['llama', 'qwen3'] as const)('bf16 weights and cache: %s', (name) => {
  it('agrees with the reference', async () => {
    const weights = await workspace.weights(modelConfig(name, 'bf16'));
    // A chunk that tensor cores compute, and a short one.
    const text = { prompt: promptOf(27, modelConfig(name).vocab), chunk: 19 };
    const [actual, expected] = await Promise.all(
      [backendWith(), referenceBackend].map(async (backend) => {
        const { plan } = compiled(name, 'bf16', 'looped', backend, manyRows);
        const executable = await backend.prepare(plan, weights, { cacheDir });
        const result = await trace(executable, text, 6);
        await executable.close();
        return result;
      }),
    );
    const errors = actual!.logits.map((logits, at) => relativeError(logits, expected!.logits[at]!));
    expect(Math.max(...errors)).toBeLessThan(1e-2);
    expect(actual!.tokens).toEqual(expected!.tokens);
  });
});

/** One head, and one block of inputs. */
const oneHead = modelConfig('mistral', 'f32', { num_attention_heads: 1, num_key_value_heads: 1, vocab_size: 331 });

function mixedFormats(tensor: string): DType {
  if (/v_proj/.test(tensor)) return 'bf16';
  if (/k_proj/.test(tensor)) return 'f32';
  return /gate|down|o_proj/.test(tensor) ? 'q4_0' : 'q8_0';
}

describe('weights of all formats', () => {
  it('agree with the reference, and every schedule with every other', async () => {
    const weights = await workspace.weights(oneHead);
    const backend = backendWith();
    const prompt = promptOf(21, oneHead.vocab);
    const run = async (on: Backend, schedule: Schedule) => {
      const { capabilities } = on;
      const limits = { ...manyRows, samples: manyRows.rows };
      const options = { schedule, limits, formatOf: mixedFormats, capabilities, responseTokens: 3 };
      const executable = await on.prepare(compileModel(oneHead, options).plan, weights, { cacheDir });
      const logits = await logitsOfAll(executable, prompt, 17);
      const { tokens } = await generate(executable, { prompt, slot: 1 }, 5);
      await executable.close();
      return { logits, tokens };
    };
    const expected = await run(referenceBackend, 'operator');
    const [operator, ...others] = await Promise.all(
      backend.capabilities.schedules.map((schedule) => run(backend, schedule)),
    );
    for (const other of others) expect(other).toEqual(operator);
    const errors = operator!.logits.map((logits, at) => relativeError(logits, expected.logits[at]!));
    // Inputs of quantized matrices are rounded to int8.
    expect(Math.max(...errors)).toBeLessThan(2e-2);
    expect(Math.max(...errors)).toBeGreaterThan(0);
  });
});

/** An odd width where there may be one. */
const tileSizes = [
  { format: 'f32', width: 45 },
  { format: 'bf16', width: 45 },
  { format: 'q8_0', width: 96 },
  { format: 'q4_0', width: 96 },
] as const;

describe('what TypeScript and the kernels both know', () => {
  it('is the same', () => {
    const backend = backendWith();
    const { plan } = compiled('llama', 'f32', 'response', backend);
    const emitted = emitPrograms([plan.step, plan.response!], hostTarget);
    const source = join(workspace.directory, 'sizes.cpp');
    const print = `int main() {
  int sizes[4];
  kloop_sizes(sizes, sizes + 1, sizes + 2, sizes + 3);
  printf("%d %d %d %d %d %d", sizes[0], sizes[1], sizes[2], sizes[3], (int)offsetof(struct counters, hand_offs),
         (int)(sizeof(struct choice) <= WORK_BYTES));
${tileSizes.map(({ format, width }) => `  printf(" %d %d", ${format}_tiles::tile_bytes(${width}), ${format}_tiles::slice_bytes);`).join('\n')}
}`;
    writeFileSync(source, `${hostSource(emitted.source)}\n#include <stddef.h>\n${print}\n`);
    const program = join(workspace.directory, 'sizes');
    execFileSync('g++', ['-std=c++17', '-O0', '-w', '-o', program, source]);
    const sizes = execFileSync(program, { encoding: 'utf8' }).split(' ').map(Number);
    const known = [launchBytes, countersLayout.bytes, 24, emitted.sharedBytes, countersLayout.readAt, 1];
    const tiles = tileSizes.flatMap(({ format, width }) => [
      tileBytesOf(format, width).tile,
      sliceBytesOf(format, hostTarget.sliceBytes),
    ]);
    expect(sizes).toEqual([...known, ...tiles]);
    expect(mailboxWords.expected).toBe(24 / 4 - 1);
  });

  const include = ['/usr/local/cuda/include', '/usr/include'].find((path) => existsSync(join(path, 'cuda.h')));
  it.skipIf(include === undefined)('is what cuda.h says of launches', () => {
    const source = join(workspace.directory, 'launch.cpp');
    const [config, attribute] = ['CUlaunchConfig', 'CUlaunchAttribute'];
    const places = [
      ...[`sizeof(${config})`, `offsetof(${config}, sharedMemBytes)`, `offsetof(${config}, hStream)`],
      ...[`offsetof(${config}, attrs)`, `offsetof(${config}, numAttrs)`],
      ...[`sizeof(${attribute})`, `offsetof(${attribute}, value.programmaticStreamSerializationAllowed)`],
      'CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION',
    ];
    const print = places.map((place) => `printf("%d ", (int)${place});`).join(' ');
    writeFileSync(source, `#include <cuda.h>\n#include <stddef.h>\n#include <stdio.h>\nint main() { ${print} }\n`);
    const program = join(workspace.directory, 'launch');
    execFileSync('g++', ['-std=c++17', '-w', '-I', include!, '-o', program, source]);
    const at = (field: string): number => koffi.offsetof(launchConfig, field);
    expect(execFileSync(program, { encoding: 'utf8' }).trim().split(' ').map(Number)).toEqual([
      ...[koffi.sizeof(launchConfig), at('sharedMemBytes'), at('hStream'), at('attrs'), at('numAttrs')],
      ...[koffi.sizeof(launchAttribute), koffi.offsetof(launchAttribute, 'value'), streamSerialization],
    ]);
  });

  it('goes together where every multiprocessor has a head of its own', () => {
    const [name, fields] = ['llama', { num_key_value_heads: 2, head_dim: 16 }] as const;
    const capabilities = { ...backendWith().capabilities, defaultWorkers: 2 };
    const options = { schedule: 'looped', limits: smallLimits, capabilities } as const;
    const { plan } = compileModel(modelConfig(name, 'f32', fields), options);
    expect(emitPrograms([plan.step], hostTarget).source).toContain('f32_linear(me, layer_q,');
  });

  it('leaves room for light kernels, which may begin while those with a ring end', () => {
    const { plan } = compiled('llama', 'f32', 'operator', backendWith());
    for (const target of targets.filter(({ name }) => name.length > 5 || name === 'sm_90')) {
      const calls = emitPrograms([plan.step], target).calls.flat();
      const bytesOf = (name: string): number => calls.find(({ symbol }) => symbol === `step_${name}`)!.sharedBytes;
      const light = ['attn_add', 'ffn_norm'].map(bytesOf);
      // Every block takes 1 KiB more, and a multiprocessor has 1 KiB more than a block can have.
      const all = [bytesOf('gate_up'), ...light].reduce((sum, bytes) => sum + bytes + 1024, 0);
      expect(all).toBeLessThanOrEqual(target.sharedBytes + 1024);
      expect(bytesOf('attention')).toBe(bytesOf('gate_up'));
    }
  });

  it('numbers launches such that the three counters come in turn for ever', () => {
    expect(launchAfter(6)).toBe(7);
    expect(launchAfter(launchNumbers - 1)).toBe(0);
    expect(launchNumbers % 3).toBe(0);
    expect(launchNumbers).toBeLessThan(2 ** 32);
  });

  it('has a counter for each key/value head', () => {
    expect(supportText('engine.cuh')).toContain(`#define MAX_KV_HEADS ${maxKvHeads}\n`);
    expect(supportText('engine.cuh')).toContain(`#define TROUBLE_TOLD ${troubleTold}\n`);
    const heads = maxKvHeads + 1;
    const many = { num_hidden_layers: 1, num_attention_heads: heads, num_key_value_heads: heads, head_dim: 2 };
    const { capabilities } = backendWith();
    const options = { schedule: 'looped', limits: smallLimits, capabilities } as const;
    const { plan } = compileModel(modelConfig('llama', 'f32', many), options);
    expect(() => emitPrograms([plan.step], hostTarget)).toThrow(/257 key\/value heads/);
  });

  it('leaves room for the ring, however long the context', () => {
    const { step } = compiled('gemma2', 'f32', 'operator', backendWith()).plan;
    const wide = step.values.map((value) => {
      const { role, shape } = value.tensor;
      return role === 'state' && shape.length === 4
        ? { ...value, tensor: { ...value.tensor, shape: [...shape.slice(0, 3), 128] } }
        : value;
    });
    for (const context of [8192, 131_072, 262_144, 1 << 20]) {
      const program = { ...step, values: wide, limits: { ...step.limits, context } };
      for (const target of targets) {
        const { ringSlots, spans, spanLength } = layoutFor(target, [program]);
        const short = layoutFor(target, [{ ...program, limits: step.limits }]);
        expect(spans * spanLength, target.name).toBeGreaterThanOrEqual(context);
        expect(ringSlots, target.name).toBeGreaterThanOrEqual(Math.min(4, short.ringSlots));
        // Not shorter than it must be.
        expect(spans, target.name).toBeLessThan(Math.max(256, context / 512));
      }
    }
  });

  it('fits every machine', () => {
    const { plan } = compiled('llama', 'f32', 'looped', backendWith());
    for (const target of targets) {
      const { sharedBytes } = emitPrograms([plan.step], target);
      expect(sharedBytes).toBeLessThanOrEqual(target.sharedBytes);
      expect(layoutFor(target, [plan.step]).ringSlots).toBeGreaterThanOrEqual(4);
    }
    const nameFor = (major: number, minor: number, kib: number): string | undefined =>
      targetFor({ major, minor, sharedBytesPerBlock: kib << 10 })?.name;
    expect(nameFor(7, 5, 64)).toBeUndefined();
    // Not every machine of 8.x has as much shared memory as that of 8.0.
    const ampere = [nameFor(8, 0, 163), nameFor(8, 6, 99), nameFor(8, 7, 163), nameFor(8, 9, 99)];
    expect(ampere).toEqual(['sm_80', 'sm_86', 'sm_87', 'sm_89']);
    // A cubin does not run on another major version.
    const later = [
      nameFor(9, 0, 227),
      nameFor(10, 0, 227),
      nameFor(10, 3, 227),
      nameFor(11, 0, 227),
      nameFor(12, 1, 99),
    ];
    expect(later).toEqual(['sm_90', 'sm_100', 'sm_100', undefined, 'sm_120']);
    // Of a machine that nobody has written down, what it says decides.
    expect([nameFor(8, 8, 99), nameFor(8, 8, 163), nameFor(8, 8, 50)]).toEqual(['sm_86', 'sm_87', undefined]);
  });
});

describe('under ThreadSanitizer', () => {
  /** Runs the response kernel alone: weights of all formats, few rows and many. Text of what the sanitizer found. */
  function racesOf(change = (source: string) => source): string {
    const limits = { ...smallLimits, rows: manyRows.rows, samples: manyRows.rows };
    const { capabilities } = backendWith();
    const options = { schedule: 'response', limits, formatOf: mixedFormats, capabilities, responseTokens: 4 } as const;
    const { plan } = compileModel(oneHead, options);
    const emitted = emitPrograms([plan.step, plan.response!], hostTarget);
    const [call] = emitted.calls[1]!;
    const place = (name: string): number => emitted.memory.placeOf(name).offset;
    const main = readFileSync(join(import.meta.dirname, '../../../tests/support/cuda/race_main.h'), 'utf8');
    const holes: Record<string, string> = {
      ARENA_BYTES: String(emitted.arenaBytes),
      WEIGHT_BYTES: '4000000',
      KERNEL_NAME: call!.symbol,
      POSITIONS: String(place('positions')),
      SLOTS: String(place('slots')),
      INDEX: String(place('index')),
      REMAINING: String(place('remaining')),
      SETTINGS_AT: String(place('settings')),
      BIASED_AT: String(place('biased')),
      ALLOWED_AT: String(place('allowed')),
      ALLOWED_WORDS: String(allowedWords(oneHead.vocab)),
    };
    const filled = main.replace(/\b[A-Z_]+\b/g, (word) => holes[word] ?? word);
    const source = join(workspace.directory, 'race.cpp');
    writeFileSync(source, `${hostSource(change(emitted.source))}\n${filled}`);
    const program = join(workspace.directory, 'race');
    execFileSync('g++', ['-std=c++17', '-Og', '-g', '-w', '-fsanitize=thread', '-o', program, source]);
    // One race is enough to fail.
    const env = { ...process.env, TSAN_OPTIONS: 'halt_on_error=1' };
    try {
      return execFileSync(program, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 100_000, env });
    } catch (error) {
      return String((error as { stderr?: unknown }).stderr);
    }
  }

  it('shares memory without races', () => {
    expect(racesOf()).toBe('ended\n');
  });

  it('would see a hand-off that is missing', () => {
    const handOffs = (source: string): string[] => source.match(/^ *hand_off\(me, \d+\);\n/gm)!;
    const without = (source: string): string =>
      source.replace(handOffs(source).at(-3)!, 'me->rows_used = 0; compute_sync();\n');
    expect(racesOf(without)).toMatch(/data race/);
  });

  it('would see a barrier that is missing', () => {
    const norm = /(rms_norm\(me, own_h [^\n]*\n *share_rows[^\n]*\n *)compute_sync\(\);\n/g;
    expect(racesOf((source) => source.replace(norm, '$1'))).toMatch(/data race/);
  });
});
