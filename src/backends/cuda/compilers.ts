/**
 * The compilers of generated CUDA C++: NVRTC as a library where there is one, else nvcc. Either makes a cubin, which is for one
 * machine exactly: the driver compiles nothing when it loads it.
 */
import { execFile } from 'node:child_process';
import { delimiter, dirname, isAbsolute } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ToolchainError } from '../../util/errors.js';
import { inlineHeaders } from './emit/program.js';
import { Nvrtc } from './nvrtc.js';

const run = promisify(execFile);

/** At the same depth below src/ and dist/. */
const nvrtcFile = fileURLToPath(new URL('../../../dist/backends/cuda/nvrtc-main.js', import.meta.url));

/** Something that makes an image, which the driver can load, from emitted source. */
export interface CudaCompiler {
  readonly path: string;
  /** Which compiler it is, and which one of it; images of another one are not used. */
  readonly version: string;
  /** The whole text that is compiled. */
  readonly textOf: (source: string) => string;
  /** @param target `sm_90` */
  readonly flags: (target: string) => readonly string[];
  /** What the input file is called. */
  readonly inputName: string;
  /** What makes `output` of the file `input`. */
  readonly command: (flags: readonly string[], input: string, output: string) => Command;
}

/** A program with its arguments, and what its environment has besides that of this process. */
interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * No contraction: a product and a sum are fused only where the source says so, or equal kernels could round differently in
 * different schedules. 177: support code that this program does not use.
 */
const commonFlags = ['-std=c++17', '-fmad=false', '-diag-suppress=177'];

/**
 * The compiler to use: NVRTC, which comes with many a machine that has no toolkit and needs nothing of the host, or else nvcc.
 * Undefined where there is neither.
 */
export async function findCudaCompiler(): Promise<CudaCompiler | undefined> {
  return findNvrtc() ?? (await findNvcc());
}

/** Names of the library, newest first; the kernels use instructions that CUDA 12 brought. */
const nvrtcCandidates =
  process.platform === 'win32'
    ? ['nvrtc64_130_0.dll', 'nvrtc64_120_0.dll']
    : ['libnvrtc.so.13', 'libnvrtc.so.12', 'libnvrtc.so', '/usr/local/cuda/lib64/libnvrtc.so'];
const oldestNvrtc = 12;

/** libnvrtc, from where the loader looks or where CUDA is usually installed. Undefined where there is none. */
export function findNvrtc(candidates: readonly string[] = nvrtcCandidates): CudaCompiler | undefined {
  for (const path of candidates) {
    const version = nvrtcVersion(path);
    if (version === undefined || version[0] < oldestNvrtc) continue;
    return {
      path,
      version: `NVRTC ${version.join('.')}`,
      textOf: (source) => inlineHeaders(source),
      flags: (target) => [...commonFlags, `-arch=${target}`],
      inputName: 'program.cu',
      command: (flags, input, output) => ({
        program: process.execPath,
        args: [nvrtcFile, path, output, input, ...flags],
        // It loads a second library from beside itself, which the loader must find as well.
        ...(isAbsolute(path) ? { env: loaderPath(dirname(path)) } : {}),
      }),
    };
  }
  return undefined;
}

function nvrtcVersion(path: string): readonly [number, number] | undefined {
  try {
    const nvrtc = new Nvrtc(path);
    const version = nvrtc.version();
    nvrtc.close();
    return version;
  } catch (error) {
    if (error instanceof ToolchainError) return undefined;
    throw error;
  }
}

function loaderPath(directory: string): Record<string, string> {
  const name = process.platform === 'win32' ? 'PATH' : 'LD_LIBRARY_PATH';
  return { [name]: [directory, process.env[name] ?? ''].filter((part) => part !== '').join(delimiter) };
}

/** nvcc, from the path or from where CUDA is usually installed. Undefined where there is none. */
export async function findNvcc(
  candidates: readonly string[] = ['nvcc', '/usr/local/cuda/bin/nvcc'],
): Promise<CudaCompiler | undefined> {
  for (const path of candidates) {
    try {
      const { stdout } = await run(path, ['--version'], { timeout: 30_000 });
      const version = /release [\d.]+, V[\d.]+/.exec(stdout)?.[0] ?? 'of an unknown release';
      return {
        path,
        version: `nvcc ${version}`,
        textOf: (source) => inlineHeaders(source),
        flags: (target) => ['-cubin', '-O3', ...commonFlags, `-arch=${target}`],
        inputName: 'program.cu',
        command: (flags, input, output) => ({ program: path, args: [...flags, '-o', output, input] }),
      };
    } catch {
      continue;
    }
  }
  return undefined;
}
