/**
 * Compiling generated CUDA C++ with nvcc, for one machine exactly (a cubin: the driver compiles nothing when it loads it).
 * Images are cached under a hash of everything that went into them, and renamed into place when they are whole.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { AbortedError, StorageError, ToolchainError, messageOf } from '../../util/errors.js';
import { asStorageError, temporaryDirectory } from '../../util/files.js';
import { inlineHeaders } from './emit/program.js';

const run = promisify(execFile);
const compileTimeoutMs = 600_000;

/** Something that makes an image, which the driver can load, from emitted source. */
export interface CudaCompiler {
  readonly path: string;
  /** Of the compiler; images of another version are not used. */
  readonly version: string;
  /** The whole text that is compiled. */
  readonly textOf: (source: string) => string;
  /** @param target `sm_90` */
  readonly flags: (target: string) => readonly string[];
  /** What the input file is called. */
  readonly inputName: string;
}

/**
 * No contraction: a product and a sum are fused only where the source says so, or equal kernels could round differently in
 * different schedules. 177: support code that this program does not use.
 */
const nvccFlags = ['-cubin', '-O3', '-std=c++17', '-fmad=false', '-diag-suppress', '177'];

/** nvcc, from the path or from where CUDA is usually installed. Undefined where there is none. */
export async function findNvcc(
  candidates: readonly string[] = ['nvcc', '/usr/local/cuda/bin/nvcc'],
): Promise<CudaCompiler | undefined> {
  for (const path of candidates) {
    try {
      const { stdout } = await run(path, ['--version'], { timeout: 30_000 });
      const version = /release [\d.]+, V[\d.]+/.exec(stdout)?.[0] ?? '';
      return {
        path,
        version,
        textOf: (source) => inlineHeaders(source),
        flags: (target) => [...nvccFlags, `-arch=${target}`],
        inputName: 'program.cu',
      };
    } catch {
      continue;
    }
  }
  return undefined;
}

export interface ImageRequest {
  readonly source: string;
  readonly target: string;
  readonly cacheDir: string;
  readonly compiler: CudaCompiler;
  readonly signal?: AbortSignal;
}

/**
 * Path of an image of `source`.
 * @throws ToolchainError where the compiler fails, StorageError where the cache cannot be written
 */
export async function compileImage({ source, target, cacheDir, compiler, signal }: ImageRequest): Promise<string> {
  const text = compiler.textOf(source);
  const flags = compiler.flags(target);
  const hash = createHash('sha256').update(JSON.stringify([text, flags, compiler.version]));
  const image = join(cacheDir, `kernels-${target}-${hash.digest('hex').slice(0, 32)}.cubin`);
  if (existsSync(image)) return image;
  const directory = await temporaryDirectory(cacheDir, 'compile');
  try {
    const [input, output] = [join(directory, compiler.inputName), join(directory, 'program.image')];
    await writeFile(input, text);
    await run(compiler.path, [...flags, '-o', output, input], {
      timeout: compileTimeoutMs,
      maxBuffer: 16 << 20,
      ...(signal === undefined ? {} : { signal }),
    });
    renameSync(output, image);
    return image;
  } catch (error) {
    if (signal?.aborted === true) throw new AbortedError('compiling was stopped');
    throw compileError(error, compiler, image);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function compileError(error: unknown, compiler: CudaCompiler, image: string): unknown {
  const { stderr } = error as { stderr?: unknown };
  if (typeof stderr !== 'string') return asStorageError(image, error);
  if (/No space left on device/.test(stderr)) {
    return new StorageError(image, 'no space left on the disk', { hint: 'free some space or choose another place' });
  }
  const first = stderr.split('\n').find((line) => /error|fatal/i.test(line)) ?? messageOf(error);
  return new ToolchainError(`${compiler.path} could not compile the kernels: ${first.trim()}`, {
    hint: `check ${compiler.path} (${compiler.version}) and its host compiler, or use --backend cpu`,
    cause: error,
  });
}
