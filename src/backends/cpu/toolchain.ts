/**
 * Compiling generated C with the machine's own compiler. Libraries are cached under a hash of everything that went into
 * them; they are made under a temporary name and renamed, so that concurrent processes and interruptions leave no half ones.
 * One that cannot be loaded all the same is made again.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { AbortedError, messageOf, StorageError, ToolchainError } from '../../util/errors.js';
import { asStorageError, temporaryDirectory } from '../../util/files.js';
import type { InstructionSet } from './instruction-set.js';
import { isLoadable } from './library.js';

const run = promisify(execFile);

/** Headers and fixed sources; at the same depth below src/ and dist/. */
const supportDir = fileURLToPath(new URL('../../../src/backends/cpu/support/', import.meta.url));

/**
 * No contraction: a product and a sum are fused only where the source says so, or equal kernels could round differently in
 * different schedules.
 */
const commonFlags = ['-std=gnu11', '-O3', '-fPIC', '-shared', '-fvisibility=hidden', '-ffp-contract=off', '-pthread'];
/**
 * gcc would move products to where they are summed, past the end of the registers of AVX2: without this pass they stay in the
 * order of the source. clang has no such pass, and warns.
 */
const orderFlags = ['-fno-tree-ter', '-Wno-ignored-optimization-argument'];
const warningFlags = ['-Wall', '-Wextra', '-Werror'];
const compileTimeoutMs = 300_000;

export interface Compiler {
  readonly path: string;
  /** First line of `--version`. */
  readonly version: string;
}

/** The C compiler: `cc`, `gcc` or `clang`, whichever answers first. Undefined where there is none. */
export async function findCompiler(
  candidates: readonly string[] = ['cc', 'gcc', 'clang'],
): Promise<Compiler | undefined> {
  for (const path of candidates) {
    try {
      const { stdout } = await run(path, ['--version'], { timeout: 10_000 });
      return { path, version: stdout.split('\n')[0] ?? '' };
    } catch {
      continue;
    }
  }
  return undefined;
}

export interface CompileRequest {
  readonly source: string;
  readonly instructionSet: InstructionSet;
  readonly cacheDir: string;
  readonly compiler: Compiler;
  /** Further compiler flags, which overrule the usual ones. */
  readonly extraFlags?: readonly string[];
  readonly signal?: AbortSignal;
}

/**
 * Path of a shared library made of `source`, now or earlier.
 * @throws ToolchainError where the compiler fails, StorageError where the cache cannot be written
 */
export async function compileLibrary(request: CompileRequest): Promise<string> {
  const { source, instructionSet, cacheDir, compiler, signal } = request;
  const flags = [
    ...commonFlags,
    ...orderFlags,
    ...warningFlags,
    ...instructionSet.compilerFlags,
    `-DKLOOP_SIMD="simd_${instructionSet.name}.h"`,
    ...(request.extraFlags ?? []),
  ];
  const hash = createHash('sha256').update(JSON.stringify([source, flags, compiler.version, supportText()]));
  const library = join(cacheDir, `kernels-${hash.digest('hex').slice(0, 32)}.so`);
  // Otherwise it is replaced: other processes may have made it anew meanwhile, and one that is in use goes on.
  if (isLoadable(library)) return library;
  const directory = await temporaryDirectory(cacheDir, 'compile');
  try {
    const input = join(directory, 'program.c');
    const output = join(directory, 'program.so');
    await writeFile(input, source);
    await run(compiler.path, [...flags, `-I${supportDir}`, '-o', output, input, '-lm'], {
      timeout: compileTimeoutMs,
      maxBuffer: 16 << 20,
      ...(signal === undefined ? {} : { signal }),
    });
    await syncFile(output);
    renameSync(output, library);
    return library;
  } catch (error) {
    if (signal?.aborted === true) throw new AbortedError('compiling was stopped');
    if (instructionSet.float32 === undefined || !isUnknownFlag(error)) throw compileError(error, compiler, library);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  return compileLibrary({ ...request, instructionSet: instructionSet.float32 });
}

function isUnknownFlag(error: unknown): boolean {
  const { stderr } = error as { stderr?: unknown };
  return typeof stderr === 'string' && /unrecognized (command[- ]line )?option|unknown argument/.test(stderr);
}

/** To the disk, so that a crash of the system cannot leave the name without the content. */
async function syncFile(path: string): Promise<void> {
  const file = await open(path);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function compileError(error: unknown, compiler: Compiler, library: string): unknown {
  const { stderr } = error as { stderr?: unknown };
  if (typeof stderr !== 'string') return asStorageError(library, error);
  if (/No space left on device/.test(stderr)) {
    return new StorageError(library, 'no space left on the disk', {
      hint: 'free some space or choose another place',
      cause: error,
    });
  }
  const first = stderr.split('\n').find((line) => /error/i.test(line)) ?? messageOf(error);
  return new ToolchainError(`${compiler.path} could not compile the kernels: ${first.trim()}`, {
    hint: `check ${compiler.path} (${compiler.version}) with \`kloop doctor\`, or use --backend reference`,
    cause: error,
  });
}

/** All of support/, since headers are part of what is compiled. */
function supportText(): string {
  return readdirSync(supportDir)
    .sort()
    .map((name) => readFileSync(join(supportDir, name), 'utf8'))
    .join('\0');
}

/** The text of a fixed source in support/. */
export function supportSource(name: string): string {
  return readFileSync(join(supportDir, name), 'utf8');
}
