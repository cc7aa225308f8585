/**
 * Generated programs as executables of their own (c-driver.c): compiled with any compiler and flags, fed with the inputs
 * of two requests, run under any emulator. What they compute is what the reference backend computes.
 */
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ExecutionPlan, Step } from '../../src/backends/backend.js';
import { emitPrograms } from '../../src/backends/cpu/emit/program.js';
import { cpuCapabilities } from '../../src/backends/cpu/index.js';
import type { InstructionSet } from '../../src/backends/cpu/instruction-set.js';
import type { MemoryMap } from '../../src/backends/memory-map.js';
import { stepInputs } from '../../src/backends/host-loop.js';
import { referenceBackend } from '../../src/backends/reference/index.js';
import { packedWeightsFile } from '../../src/checkpoint/packed.js';
import { baseName } from '../../src/ir/outline.js';
import type { Name, Program } from '../../src/ir/program.js';
import { compileModel } from '../../src/passes/pipeline.js';
import { modelConfig, smallLimits, type ModelName, type StoredDtype, type Workspace } from './models.js';
import { greedy, promptOf, stepOf } from './steps.js';

const run = promisify(execFile);
const support = fileURLToPath(new URL('../../src/backends/cpu/support/', import.meta.url));
const driver = fileURLToPath(new URL('c-driver.c', import.meta.url));

/** A prompt chunk whose rows are all samples, then tokens of two slots in one response call, from a position on. */
function requests(vocab: number, tokens: number, first: number): readonly [Step, Step] {
  const prompt = promptOf(6, vocab, 8);
  const rows = prompt.map((token, i) => ({ token, position: first + (i % 3), slot: i < 3 ? 0 : 1, sample: greedy }));
  const next = [0, 1].map((slot) => ({ token: 5 + slot, position: first + 3, slot, sample: greedy }));
  return [stepOf(rows, { wantLogits: true }), stepOf(next, { steps: tokens })];
}

export interface DriverCase {
  readonly plan: ExecutionPlan;
  readonly source: string;
  readonly memory: MemoryMap;
  readonly weightsPath: string;
  readonly requests: readonly [Step, Step];
  readonly expected: DriverResult;
}

export interface DriverResult {
  /** Of all rows of the first request. */
  readonly logits: Float32Array;
  /** Of both samples of the second one. */
  readonly tokens: readonly (readonly number[])[];
}

const responseTokens = 3;

/** @param first position of the first row; what is before it in the cache was never written, and is zero */
export async function driverCase(
  name: ModelName,
  dtype: StoredDtype,
  workspace: Workspace,
  first = 0,
): Promise<DriverCase> {
  const config = modelConfig(name, dtype, { max_position_embeddings: 1024 });
  const limits = { ...smallLimits, samples: smallLimits.rows, context: smallLimits.context + first };
  // As they are run.
  const weightFormat = dtype === 'bf16' ? 'bf16z' : dtype;
  const options = { schedule: 'response', limits, responseTokens, workers: 2, weightFormat } as const;
  const { plan } = compileModel(config, { ...options, capabilities: cpuCapabilities() });
  const weights = await workspace.weights(config);
  const weightsPath = await packedWeightsFile(plan.step, weights, { cacheDir: workspace.cacheDir });
  const oracle = compileModel(config, { ...options, capabilities: referenceBackend.capabilities }).plan;
  const reference = await referenceBackend.prepare(oracle, weights, {});
  const both = requests(config.vocab, responseTokens, first);
  const { logits } = await reference.run(both[0]);
  const { tokens } = await reference.run(both[1]);
  const programs = [plan.step, plan.response!];
  return { plan, ...emitPrograms(programs), weightsPath, requests: both, expected: { logits: logits!, tokens } };
}

export interface BuildOptions {
  readonly compiler: string;
  readonly instructionSet: InstructionSet;
  readonly flags: readonly string[];
}

/** Compiles the case; resolves to the executable. */
export async function buildDriver(test: DriverCase, options: BuildOptions, workspace: Workspace): Promise<string> {
  const directory = workspace.path('driver');
  const [source, executable] = [`${directory}.c`, `${directory}.out`];
  writeFileSync(source, test.source);
  const flags = ['-std=gnu11', '-O2', '-ffp-contract=off', '-Wall', '-Wextra', '-Werror', '-pthread'];
  await run(options.compiler, [
    ...flags,
    ...options.instructionSet.compilerFlags,
    `-DKLOOP_SIMD="simd_${options.instructionSet.name}.h"`,
    `-DKLOOP_PROGRAM="${source}"`,
    `-I${support}`,
    ...options.flags,
    '-o',
    executable,
    driver,
    '-lm',
  ]);
  return executable;
}

/** Runs both requests `repeat` times; resolves to the last results. Rejects where the driver fails, or says anything. */
export async function runDriver(
  command: readonly string[],
  test: DriverCase,
  threads: number,
  workspace: Workspace,
  repeat = 1,
): Promise<DriverResult> {
  const { step, response } = test.plan;
  const [script, output] = [workspace.path('script'), workspace.path('output')];
  const parts: Buffer[] = [];
  for (let i = 0; i < repeat; i++) {
    parts.push(...inputs(step, test.requests[0], test.memory), ...launches(0, step, test.requests[0]));
    parts.push(...inputs(response!, test.requests[1], test.memory), ...launches(1, response!, test.requests[1]));
  }
  const emitted = response!.outputs.filter((name) => baseName(name) === 'emitted');
  const vocab = Number(step.values.find(({ name }) => name === 'logits')?.tensor.shape.at(-1));
  const [first, second] = test.requests;
  const reads: [Name, number][] = [
    ['logits', first.index.length * vocab],
    ...emitted.map((name): [Name, number] => [name, 2]),
  ];
  for (const [name, elements] of reads) {
    parts.push(Buffer.from(`read ${test.memory.placeOf(name).offset} ${elements * 4}\n`));
  }
  writeFileSync(script, Buffer.concat(parts));
  const [program, ...args] = command;
  const { stderr } = await run(program!, [...args, test.weightsPath, String(threads), script, output], {
    maxBuffer: 1 << 26,
  });
  if (stderr !== '') throw new Error(stderr);
  const bytes = readFileSync(output);
  const words = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const logits = new Float32Array(words, 0, first.index.length * vocab);
  const ids = new Int32Array(words, logits.byteLength);
  const tokens = [...second.index].map((_, sample) => emitted.map((_, token) => ids[2 * token + sample]!));
  return { logits, tokens };
}

function inputs(program: Program, step: Step, memory: MemoryMap): Buffer[] {
  const given = stepInputs(step);
  return program.values.flatMap(({ name, origin }) => {
    const data =
      origin.kind === 'constant'
        ? Float32Array.from(origin.data)
        : origin.kind === 'input'
          ? given.get(name)
          : undefined;
    if (data === undefined) return [];
    const head = Buffer.from(`write ${memory.placeOf(name).offset} ${data.byteLength}\n`);
    return [head, Buffer.from(data.buffer, data.byteOffset, data.byteLength)];
  });
}

function launches(program: number, { calls }: Program, { tokens, index }: Step): Buffer[] {
  return calls.map((_, call) => Buffer.from(`launch ${program} ${call} ${tokens.length} ${index.length}\n`));
}

/** Whether a small program compiles and runs with these flags: why not, or undefined. */
export async function cannotBuild(
  compiler: string,
  flags: readonly string[],
  workspace: Workspace,
  runner: readonly string[] = [],
): Promise<string | undefined> {
  const base = workspace.path('probe');
  writeFileSync(`${base}.c`, '#include <pthread.h>\nint main(void) { return 0; }\n');
  try {
    await run(compiler, [...flags, '-pthread', '-o', `${base}.out`, `${base}.c`]);
    const [program, ...args] = [...runner, join(`${base}.out`)];
    await run(program, args);
    return undefined;
  } catch (error) {
    return `${compiler} ${flags.join(' ')} does not work here: ${String(error).split('\n').slice(0, 2).join(' ')}`;
  }
}
