/**
 * Compiling generated CUDA C++. Images are cached under a hash of everything that went into them, and renamed into place when
 * they are whole.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { AbortedError, StorageError, ToolchainError, messageOf } from '../../util/errors.js';
import { asStorageError, temporaryDirectory } from '../../util/files.js';
import type { CudaCompiler } from './compilers.js';

const run = promisify(execFile);
const compileTimeoutMs = 600_000;

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
    const { program, args, env } = compiler.command(flags, input, output);
    await run(program, [...args], {
      env: { ...process.env, ...env },
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
  if (/no space left on device/i.test(stderr)) {
    return new StorageError(image, 'no space left on the disk', { hint: 'free some space or choose another place' });
  }
  const first = stderr.split('\n').find((line) => /error|fatal/i.test(line)) ?? messageOf(error);
  return new ToolchainError(`${compiler.path} could not compile the kernels: ${first.trim()}`, {
    hint: `check the installation of ${compiler.version}, or use --backend cpu`,
    cause: error,
  });
}
