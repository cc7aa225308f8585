/**
 * The cpu backend: programs -> C -> a shared library -> a worker thread that calls it. Preparing packs the weights once
 * (a file that is mapped afterwards), compiles once (a library named by its content), and starts the workers.
 */
import { availableParallelism } from 'node:os';
import { packedWeightsFile } from '../../checkpoint/packed.js';
import type { Weights } from '../../checkpoint/weights.js';
import { dtypes } from '../../ir/formats.js';
import type { Program } from '../../ir/program.js';
import { assertChecked } from '../../passes/check-schedule.js';
import { packedLength } from '../../passes/pack-weights.js';
import { ToolchainError } from '../../util/errors.js';
import type { Backend, Capabilities, ExecutionPlan, PrepareOptions } from '../backend.js';
import { defaultCacheDir } from '../cache-dir.js';
import { tellOfCompiling } from '../compile-progress.js';
import { WorkerExecutable } from '../worker-executable.js';
import { contextBlock, roomOf } from './emit/attention.js';
import { emitPrograms } from './emit/program.js';
import { chooseInstructionSet } from './instruction-set.js';
import type { MemoryMap } from '../memory-map.js';
import { loadLibrary, stageTimes } from './library.js';
import { physicalCores, processorsFor } from './processors.js';
import type { CpuSetup } from './setup.js';
import { compileLibrary, findCompiler } from './toolchain.js';
import { spansToCopy, takesLargePages } from './weights-memory.js';

/** At the same depth below src/ and dist/. */
const workerFile = new URL('../../../dist/backends/cpu/worker.js', import.meta.url);

export function cpuCapabilities(): Capabilities {
  return {
    weightFormats: dtypes.filter((dtype) => dtype !== 'i32'),
    // Without vectors there is more to compute than to read.
    readsCompressed: chooseInstructionSet().name !== 'generic',
    stateFormats: ['f32', 'bf16', 'q8_0'],
    schedules: ['operator', 'layer', 'looped', 'response'],
    maxSockets: 1,
    // A second-level cache of common size, per core; what it really is changes only how far prefetching reaches.
    memories: [
      { name: 'L2', bytes: 1 << 20 },
      { name: 'DRAM', bytes: Number.MAX_SAFE_INTEGER },
    ],
    tileBytes: 4096,
    contextBlock,
    maxWorkers: Math.min(256, availableParallelism()),
    defaultWorkers: physicalCores(),
  };
}

/** How generated programs are compiled, where it is to be another way than usual: for tests. */
export interface CpuOptions {
  /** Compilers to try, in order. */
  readonly compilerNames?: readonly string[];
  /** After the usual flags, which they overrule. */
  readonly extraFlags?: readonly string[];
}

export function createCpuBackend(options: CpuOptions = {}): Backend {
  return {
    name: 'cpu',
    capabilities: cpuCapabilities(),
    prepare: (plan, weights, asked) => prepare(plan, weights, asked, options),
  };
}

async function prepare(
  plan: ExecutionPlan,
  weights: Weights,
  options: PrepareOptions,
  { compilerNames, extraFlags = [] }: CpuOptions,
): Promise<WorkerExecutable> {
  const programs = plan.response === undefined ? [plan.step] : [plan.step, plan.response];
  programs.forEach(assertChecked);
  const { onProgress, signal } = options;
  const cacheDir = options.cacheDir ?? defaultCacheDir();
  const compiler = await findCompiler(compilerNames);
  if (compiler === undefined) {
    throw new ToolchainError('there is no C compiler (cc, gcc or clang)', {
      hint: 'install one (Debian: apt install gcc; macOS: xcode-select --install), or use --backend reference',
    });
  }
  const { source, memory, stages } = emitPrograms(programs, { profile: options.profile ?? false });
  const compiling = compileLibrary({
    source,
    instructionSet: chooseInstructionSet(options.instructionSet),
    cacheDir,
    compiler,
    extraFlags,
    ...(signal === undefined ? {} : { signal }),
  });
  const packing = packedWeightsFile(plan.step, weights, {
    cacheDir,
    onProgress: (done, total) => onProgress?.({ phase: 'pack', done, total, unit: 'bytes' }),
    ...(signal === undefined ? {} : { signal }),
  });
  tellOfCompiling(compiling, packing, onProgress);
  // Both run to their end, so that no half of the work goes on behind an error.
  const [library, packed] = await Promise.allSettled([compiling, packing]);
  if (library.status === 'rejected') throw library.reason;
  if (packed.status === 'rejected') throw packed.reason;
  onProgress?.({ phase: 'load', done: 0, total: 1, unit: 'steps' });
  const threads = Math.max(1, Math.min(256, options.threads ?? physicalCores()));
  const setup: CpuSetup = {
    libraryPath: library.value,
    weightsPath: packed.value,
    spans: spansToCopy(plan.step, options.weightsMemory),
    largePages: takesLargePages(memory.valueBytes),
    threads,
    // A kernel runs on the thread that would tell them.
    showsTokens: false,
    processors: options.pin === true ? processorsFor(threads) : null,
    plan,
    offsets: arenaOffsets(programs, memory),
    states: plan.step.values
      .filter(({ origin }) => origin.kind === 'state')
      .map(({ name, tensor }) => [name, roomOf(tensor, plan.step)] as const),
    aborted: new Int32Array(new SharedArrayBuffer(4)),
  };
  const kernels = loadLibrary(library.value);
  const executable = await WorkerExecutable.start(workerFile, setup, (engine, aborted) =>
    kernels.abort(engine, aborted),
  );
  executable.weightsArea = { address: kernels.weights(executable.engineAddress), bytes: packedLength(plan.step) };
  if (stages.length > 0) executable.stageTimes = stageTimes(library.value, stages);
  onProgress?.({ phase: 'load', done: 1, total: 1, unit: 'steps' });
  return executable;
}

function arenaOffsets(programs: readonly Program[], memory: MemoryMap): Map<string, number> {
  const names = programs.flatMap((program) =>
    program.values.filter(({ origin }) => origin.kind !== 'checkpoint').map(({ name }) => name),
  );
  return new Map(names.map((name) => [name, memory.placeOf(name).offset]));
}
