/** What `doctor` finds out about this machine, one function per finding. A finding that fails is a problem, no error. */
import { execFile } from 'node:child_process';
import { access, constants, readFile, statfs } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { promisify } from 'node:util';
import { measureReadBandwidth } from '../backends/cpu/bandwidth.js';
import { chooseInstructionSet } from '../backends/cpu/instruction-set.js';
import { physicalCores } from '../backends/cpu/processors.js';
import { findCompiler } from '../backends/cpu/toolchain.js';
import { findCudaCompiler } from '../backends/cuda/compilers.js';
import { messageOf } from '../util/errors.js';
import { makeDirectory } from '../util/files.js';
import { availableMemory, totalMemory } from '../util/memory.js';
import { formatBytes } from '../util/units.js';

export interface Finding {
  /** Name in JSON. */
  readonly key: string;
  readonly title: string;
  /** For people, one line. */
  readonly text: string;
  /** For programs. */
  readonly value: unknown;
  /** What is wrong or worth knowing about it. */
  readonly problem?: string;
}

/** Instruction sets that kernels can profit from, as /proc/cpuinfo spells them. */
const features = [
  ...['avx2', 'fma', 'f16c', 'avx512f', 'avx512bw', 'avx512_vnni', 'avx512_bf16', 'avx_vnni', 'amx_bf16', 'amx_int8'],
  ...['asimd', 'asimddp', 'i8mm', 'bf16', 'sve'],
];

export function inspectNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const old = major < 20 || (major === 20 && minor < 19);
  const value = process.versions.node;
  return { key: 'node', title: 'Node.js', text: value, value, ...(old ? { problem: '20.19 or later is needed' } : {}) };
}

export async function inspectCpu(): Promise<Finding> {
  const model = cpus()[0]?.model.trim() ?? 'unknown';
  const words = new Set((await readText('/proc/cpuinfo')).match(/^(flags|Features)\s*:.*$/m)?.[0].split(/\s+/));
  const found = features.filter((feature) => words.has(feature));
  const text = [model, process.arch, ...found].join(', ');
  return { key: 'cpu', title: 'CPU', text, value: { model, architecture: process.arch, features: found } };
}

/** Processors that this process may use: by affinity, and by the quota of its control group. */
export async function inspectCores(): Promise<Finding> {
  const present = cpus().length;
  const allowed = availableParallelism();
  const threads = physicalCores();
  const [quota = NaN, period = NaN] = (await readText('/sys/fs/cgroup/cpu.max')).split(' ').map(Number);
  const limit = quota / period;
  const value = { present, allowed, quota: Number.isFinite(limit) ? limit : null, default_threads: threads };
  const limited = value.quota === null ? '' : `, a quota of ${limit.toFixed(1)}`;
  const text = `${allowed} of ${present} processors allowed${limited}; ${threads} threads by default`;
  return { key: 'cores', title: 'cores', text, value };
}

/** The compiler that makes the kernels, and the instruction set it is asked for. */
export async function inspectCompiler(): Promise<readonly Finding[]> {
  const compiler = await findCompiler();
  const { name } = chooseInstructionSet();
  const instructions = { key: 'instruction_set', title: 'kernels use', text: name, value: name };
  const about = { key: 'compiler', title: 'compiler', value: compiler ?? null };
  if (compiler !== undefined) return [{ ...about, text: `${compiler.path}: ${compiler.version}` }, instructions];
  const problem = 'without one models run on the slow reference backend; Debian: apt install gcc';
  return [
    { ...about, text: 'none', problem },
    { ...instructions, text: `${name}, once there is a compiler` },
  ];
}

/** Of the machine, or of the control group where that has a limit. */
export function inspectMemory(): Finding {
  const total = totalMemory();
  const free = availableMemory();
  const text = `${formatBytes(total)}, ${formatBytes(free)} free`;
  return { key: 'memory', title: 'memory', text, value: { total_bytes: total, free_bytes: free } };
}

/** What memory gives now; on a shared machine it may be something else in a minute. */
export async function inspectBandwidth(): Promise<Finding> {
  const about = { key: 'read_bandwidth_bytes_per_sec', title: 'bandwidth' };
  try {
    const value = Math.round(await measureReadBandwidth({}, 3));
    return { ...about, text: `${formatBytes(value)}/s read from memory, measured now`, value };
  } catch (error) {
    return { ...about, text: 'not measured', value: null, problem: messageOf(error) };
  }
}

/** `directory` is created where it is missing, as the first run would. */
export async function inspectCache(directory: string): Promise<Finding> {
  const about = { key: 'cache', title: 'cache' };
  try {
    await makeDirectory(directory);
    await access(directory, constants.W_OK);
    const { bavail, bsize } = await statfs(directory);
    const free = bavail * bsize;
    const text = `${directory}, ${formatBytes(free)} free`;
    return { ...about, text, value: { directory, writable: true, free_bytes: free } };
  } catch {
    const problem = 'not writable; give another one with --cache-dir';
    return { ...about, text: directory, value: { directory, writable: false }, problem };
  }
}

/** With what compiles for it, where there is one. */
export async function inspectGpu(): Promise<readonly Finding[]> {
  const query = ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader'];
  const listed = await firstOutput('nvidia-smi', query);
  const gpus = (listed ?? '').split('\n').filter((line) => line.trim() !== '');
  const driver = gpus.length > 0 || (await readText('/proc/driver/nvidia/version')) !== '';
  const text = gpus.length > 0 ? gpus.join('; ') : driver ? 'an NVIDIA driver, but no GPU answers' : 'no NVIDIA GPU';
  const found = { key: 'gpu', title: 'GPU', text, value: gpus };
  return gpus.length === 0 ? [found] : [found, await inspectCudaCompiler()];
}

async function inspectCudaCompiler(): Promise<Finding> {
  const compiler = await findCudaCompiler();
  const about = { key: 'cuda_compiler', title: 'CUDA compiler' };
  if (compiler === undefined) {
    const problem = 'without libnvrtc or nvcc no model runs on the GPU; install the CUDA toolkit, version 12 or newer';
    return { ...about, text: 'none', value: null, problem };
  }
  const { path, version } = compiler;
  return { ...about, text: `${path}: ${version}`, value: { path, version } };
}

/** What a program prints on stdout, or undefined where it is not there or fails. */
async function firstOutput(program: string, args: readonly string[]): Promise<string | undefined> {
  try {
    return (await promisify(execFile)(program, args, { timeout: 10_000 })).stdout;
  } catch {
    return undefined;
  }
}

async function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch(() => '');
}
