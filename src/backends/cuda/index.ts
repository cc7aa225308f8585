/**
 * The cuda backend: programs -> CUDA C++ -> a cubin -> a worker thread that launches its kernels through the driver. Under
 * `looped` and `response` a call is one cooperative kernel, with one block on every multiprocessor.
 */
import { packedWeightsFile } from '../../checkpoint/packed.js';
import type { Weights } from '../../checkpoint/weights.js';
import { packedLength } from '../../passes/pack-weights.js';
import { assertChecked, type CheckedProgram } from '../../passes/check-schedule.js';
import { ToolchainError, UsageError } from '../../util/errors.js';
import { formatBytes } from '../../util/units.js';
import type { Backend, Capabilities, ExecutionPlan, MemoryNeed, PrepareOptions } from '../backend.js';
import { defaultCacheDir } from '../cache-dir.js';
import { tellOfCompiling } from '../compile-progress.js';
import { bytesAtLimits } from '../memory-map.js';
import type { EngineAddress } from '../messages.js';
import { WorkerExecutable } from '../worker-executable.js';
import { openCudaMeter } from './bandwidth.js';
import { bytesNeeded } from './device-memory.js';
import { findCudaCompiler, type CudaCompiler } from './compilers.js';
import { CudaDriver, viewOf, type DeviceInfo } from './driver.js';
import { emitPrograms, type EmittedSource } from './emit/program.js';
import { mailboxWords, type CudaSetup } from './setup.js';
import { hasDependentLaunch, targetFor, targets, type Target } from './target.js';
import { compileImage } from './toolchain.js';

/** At the same depth below src/ and dist/. */
const workerFile = new URL('../../../dist/backends/cuda/worker.js', import.meta.url);

export interface CudaOptions {
  /** The driver's library. */
  readonly driverPath?: string;
  /** Which device. */
  readonly ordinal?: number;
  /** What compiles; NVRTC or nvcc where absent. */
  readonly compiler?: CudaCompiler;
  /** The machine that code is made for; that of the device where absent. */
  readonly target?: Target;
}

export interface CudaBackend extends Backend {
  readonly device: DeviceInfo;
  /** Compiles the kernels of a plan, so that preparing it finds them in the cache. Several at once use several processors. */
  compile(plan: ExecutionPlan, options: Pick<PrepareOptions, 'cacheDir' | 'signal'>): Promise<void>;
}

export function cudaCapabilities(device: DeviceInfo, target: Target): Capabilities {
  return {
    weightFormats: ['f32', 'bf16', 'q8_0', 'q4_0'],
    stateFormats: ['f32', 'bf16'],
    schedules: ['operator', 'layer', 'looped', 'response'],
    maxSockets: 1,
    memories: [
      { name: 'shared memory', bytes: target.sharedBytes },
      { name: 'HBM', bytes: Number.MAX_SAFE_INTEGER },
    ],
    tileBytes: target.sliceBytes,
    // The warp that fetches weights would have to know how many spans the texts have.
    projectionsByHead: false,
    maxWorkers: device.multiprocessors,
    defaultWorkers: device.multiprocessors,
  };
}

/**
 * The backend of one device of this machine.
 * @throws ToolchainError where there is no driver or no device, or one that is too old
 */
export function createCudaBackend(options: CudaOptions = {}): CudaBackend {
  const driverPath = options.driverPath ?? (process.platform === 'win32' ? 'nvcuda.dll' : 'libcuda.so.1');
  const ordinal = options.ordinal ?? 0;
  const driver = new CudaDriver(driverPath);
  const devices = driver.deviceCount;
  if (ordinal >= devices) {
    throw new ToolchainError(`the CUDA driver has ${devices} devices, and device ${ordinal} is not one of them`, {
      hint: 'check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --backend cpu',
    });
  }
  const device = driver.info(driver.device(ordinal));
  const target = options.target ?? targetFor(device);
  if (target === undefined) throw noTarget(device);
  if (!device.cooperativeLaunch) {
    throw new ToolchainError(`${device.name} launches no kernels whose blocks wait for each other`, {
      hint: 'use --backend cpu',
    });
  }
  const machine: Machine = { device, target, driverPath, ordinal, compiler: options.compiler, emitted: new WeakMap() };
  return {
    name: 'cuda',
    device,
    compile: async (plan, compileOptions) => {
      await compile(plan, compileOptions, machine);
    },
    capabilities: cudaCapabilities(device, target),
    prepare: (plan, weights, prepareOptions) => prepare(plan, weights, prepareOptions, machine),
    memoryFor: (plan) => memoryFor(plan, machine, driver),
    openBandwidthMeter: async (cacheDir) =>
      openCudaMeter({ driver, ordinal, device, target, cacheDir, compiler: await compilerOf(machine) }),
  };
}

function noTarget({ name, major, minor, sharedBytesPerBlock }: DeviceInfo): ToolchainError {
  const has = `compute capability ${major}.${minor} and ${formatBytes(sharedBytesPerBlock)} of shared memory for a block`;
  const wanted = targets.map((target) => `${target.name} (${formatBytes(target.sharedBytes)})`).join(', ');
  return new ToolchainError(`${name} has ${has}, and kernels are made for ${wanted}`, { hint: 'use --backend cpu' });
}

interface Machine {
  readonly device: DeviceInfo;
  readonly target: Target;
  readonly driverPath: string;
  readonly ordinal: number;
  readonly compiler: CudaCompiler | undefined;
  /** Of plans that were asked about before they are prepared. */
  readonly emitted: WeakMap<ExecutionPlan, EmittedSource>;
}

async function compilerOf({ compiler }: Machine): Promise<CudaCompiler> {
  const found = compiler ?? (await findCudaCompiler());
  if (found !== undefined) return found;
  throw new ToolchainError('there is no CUDA compiler: neither libnvrtc nor nvcc of CUDA 12 or newer', {
    hint: 'install the CUDA toolkit with nvcc on the path, or libnvrtc where the loader finds it, or use --backend cpu',
  });
}

/** Once for a plan. */
function emittedOf(plan: ExecutionPlan, { emitted, target }: Machine): EmittedSource {
  const known = emitted.get(plan) ?? emitPrograms(programsOf(plan), target);
  emitted.set(plan, known);
  return known;
}

function memoryFor(plan: ExecutionPlan, machine: Machine, driver: CudaDriver): MemoryNeed {
  const { device, ordinal } = machine;
  const { arenaBytes, ownBytes } = emittedOf(plan, machine);
  const weightBytes = weightBytesOf(programsOf(plan));
  const needed = bytesNeeded({ arenaBytes, ownBytes, weightBytes, threads: device.multiprocessors });
  const handle = driver.device(ordinal);
  driver.enter(handle);
  try {
    return { needed, free: driver.freeBytes() };
  } finally {
    driver.leave(handle);
  }
}

function programsOf({ step, response }: ExecutionPlan): CheckedProgram[] {
  return response === undefined ? [step] : [step, response];
}

/** Both programs read the same packed file. */
function weightBytesOf(programs: readonly CheckedProgram[]): number {
  return Math.max(...programs.map(packedLength));
}

/** Kernels are planned for all multiprocessors. */
function checkBlocks(threads: number | undefined, { device }: Machine): void {
  if (threads === undefined || threads === device.multiprocessors) return;
  throw new UsageError(
    `kernels of ${device.name} run on its ${device.multiprocessors} multiprocessors, not on ${threads}`,
    {
      hint: 'leave out --threads',
    },
  );
}

/** The kernels of a plan: what was emitted, and the path of its image. */
async function compile(
  plan: ExecutionPlan,
  { cacheDir = defaultCacheDir(), signal }: Pick<PrepareOptions, 'cacheDir' | 'signal'>,
  machine: Machine,
): Promise<{ emitted: EmittedSource; image: string }> {
  const programs = programsOf(plan);
  programs.forEach(assertChecked);
  const compiler = await compilerOf(machine);
  const emitted = emittedOf(plan, machine);
  const { source } = emitted;
  const stop = signal === undefined ? {} : { signal };
  const image = await compileImage({ source, target: machine.target.name, cacheDir, compiler, ...stop });
  return { emitted, image };
}

async function prepare(
  plan: ExecutionPlan,
  weights: Weights,
  options: PrepareOptions,
  machine: Machine,
): Promise<WorkerExecutable> {
  const programs = programsOf(plan);
  programs.forEach(assertChecked);
  const { onProgress, signal } = options;
  const stop = signal === undefined ? {} : { signal };
  const cacheDir = options.cacheDir ?? defaultCacheDir();
  checkBlocks(options.threads, machine);
  const compiling = compile(plan, { cacheDir, ...stop }, machine);
  const packing = packedWeightsFile(plan.step, weights, {
    cacheDir,
    onProgress: (done, total) => onProgress?.({ phase: 'pack', done, total, unit: 'bytes' }),
    ...stop,
  });
  tellOfCompiling(compiling, packing, onProgress);
  // Both run to their end, so that no half of the work goes on behind an error.
  const [compiled, packed] = await Promise.allSettled([compiling, packing]);
  if (compiled.status === 'rejected') throw compiled.reason;
  if (packed.status === 'rejected') throw packed.reason;
  const { emitted, image } = compiled.value;
  const weightBytes = weightBytesOf(programs);
  const setup: CudaSetup = {
    plan,
    threads: machine.device.multiprocessors,
    showsTokens: true,
    aborted: new Int32Array(new SharedArrayBuffer(4)),
    driverPath: machine.driverPath,
    ordinal: machine.ordinal,
    imagePath: image,
    weightsPath: packed.value,
    weightBytes,
    arenaBytes: emitted.arenaBytes,
    ownBytes: emitted.ownBytes,
    launches: options.launches ?? 'graph',
    dependentLaunch: hasDependentLaunch(machine.device),
    calls: emitted.calls,
    places: emitted.places,
    offsets: new Map(
      programs.flatMap(({ values }) =>
        values
          .filter(({ origin }) => origin.kind !== 'checkpoint')
          .map(({ name }) => [name, emitted.memory.placeOf(name).offset] as const),
      ),
    ),
    states: plan.step.values
      .filter(({ origin }) => origin.kind === 'state')
      .map(({ name, tensor }) => [name, bytesAtLimits(tensor, plan.step)] as const),
    loadedBytes: new Float64Array(new SharedArrayBuffer(8)),
  };
  return startWithProgress(setup, onProgress);
}

/** The worker uploads the weights; how far it is stands in memory that both threads see. */
async function startWithProgress(
  setup: CudaSetup,
  onProgress: PrepareOptions['onProgress'],
): Promise<WorkerExecutable> {
  const tell = (done: number): void => onProgress?.({ phase: 'load', done, total: setup.weightBytes, unit: 'bytes' });
  const telling = setInterval(() => tell(setup.loadedBytes[0]!), 100);
  try {
    const executable = await WorkerExecutable.start(workerFile, setup, signalAbort);
    tell(setup.weightBytes);
    return executable;
  } finally {
    clearInterval(telling);
  }
}

/** Running kernels look at their mailbox after every token. */
function signalAbort(mailbox: EngineAddress, aborted: boolean): void {
  new Int32Array(viewOf(mailbox, 4))[mailboxWords.aborted] = aborted ? 1 : 0;
}
