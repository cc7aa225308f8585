/**
 * Writing files so that a reader never sees half of one: everything goes to a temporary name beside the target, is
 * synced, and renamed; on failure the temporary is removed, and by the next who writes there if the process was killed.
 * Failures of the file system become StorageErrors.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readdirSync, realpathSync, rmSync, statSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { StorageError, messageOf } from './errors.js';

const reasons: Readonly<Record<string, string>> = {
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'the disk quota is used up',
  EACCES: 'no permission to write',
  EPERM: 'not allowed to write',
  EROFS: 'the file system is read-only',
  ENOENT: 'there is no such directory',
  ENOTDIR: 'a part of the path is not a directory',
  // Of making a directory; files are made under new names.
  EEXIST: 'a part of the path is not a directory',
  EISDIR: 'is a directory',
  EFBIG: 'the file is too large for this file system',
  EIO: 'the disk reports an input/output error',
};

/** The `code` of an operating system error (`ENOENT`, ...), or undefined. */
export function errorCode(error: unknown): string | undefined {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

/** An operating system error met while writing `file`, as a StorageError; anything else is returned as it is. */
export function asStorageError(file: string, error: unknown): unknown {
  const code = errorCode(error);
  if (code === undefined || !(error instanceof Error && 'syscall' in error)) return error;
  const hint =
    code === 'ENOSPC' || code === 'EDQUOT'
      ? 'free some space or choose another place'
      : 'choose a place you can write to';
  return new StorageError(file, reasons[code] ?? messageOf(error), { hint, cause: error });
}

/**
 * Creates a directory and those above it. `recursive` of Node tries for ever where a directory is there in which none can be
 * made, such as /proc. Throws what the system says.
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const code = errorCode(error);
    const found = statSync(path, { throwIfNoEntry: false });
    // A link that leads nowhere is found by whoever writes there.
    if (found?.isDirectory() === true || (found === undefined && code === 'EEXIST')) return;
    const parent = dirname(resolve(path));
    if (code !== 'ENOENT') throw error;
    // Another process may have made it since.
    if (!existsSync(parent)) await makeDirectory(parent);
    await mkdir(path).catch((again: unknown) => {
      if (errorCode(again) !== 'EEXIST') throw again;
    });
  }
}

/** A name in the directory of `path` that no other process or call uses; on the same file system, so it can be renamed. */
export function temporaryBeside(path: string): string {
  const full = resolve(path);
  return join(dirname(full), `.${basename(full)}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`);
}

/** An empty directory in `parent`, for work called `name`; the caller removes it. Throws StorageError. */
export async function temporaryDirectory(parent: string, name: string): Promise<string> {
  const path = join(parent, name);
  const temporary = temporaryBeside(path);
  try {
    await makeDirectory(parent);
    sweepAbandoned(path);
    await mkdir(temporary);
    return temporary;
  } catch (error) {
    throw asStorageError(parent, error);
  }
}

/** Longer than whoever writes pauses, should its process be one of another machine or container. */
const abandonedMs = 10 * 60_000;

/** Removes the temporaries of `path` that killed processes left. */
function sweepAbandoned(path: string): void {
  const directory = dirname(resolve(path));
  const prefix = `.${basename(resolve(path))}.`;
  for (const entry of readdirSync(directory)) {
    const pid = entry.startsWith(prefix)
      ? /^(\d+)\.[0-9a-f]{12}\.tmp$/.exec(entry.slice(prefix.length))?.[1]
      : undefined;
    if (pid === undefined || isAlive(Number(pid))) continue;
    const file = join(directory, entry);
    // Another process may sweep, too.
    const { mtimeMs = Infinity } = statSync(file, { throwIfNoEntry: false }) ?? {};
    if (Date.now() - mtimeMs > abandonedMs) rmSync(file, { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) !== 'ESRCH';
  }
}

/** Throws StorageError where `path` could not be written, before the work whose result goes there. Makes its directory. */
export async function requireWritable(path: string): Promise<void> {
  const temporary = temporaryBeside(path);
  try {
    await makeDirectory(dirname(temporary));
    await (await open(temporary, 'wx')).close();
    await rm(temporary);
  } catch (error) {
    throw asStorageError(path, error);
  }
}

/** Creates or replaces `path` with what `write` puts into the handle. Throws StorageError; leaves no temporary. */
export async function writeFileAtomic(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const temporary = temporaryBeside(path);
  try {
    await makeDirectory(dirname(temporary));
    sweepAbandoned(path);
    const file = await open(temporary, 'wx');
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw asStorageError(path, error);
  }
}

/**
 * Creates the directory `path` with what `fill` puts into a temporary one. The target may exist only as an empty
 * directory, or as a link to one. Throws StorageError; leaves no temporary.
 */
export async function createDirectoryAtomic(path: string, fill: (directory: string) => Promise<void>): Promise<void> {
  let temporary: string | undefined;
  try {
    const target = requireReplaceable(path);
    temporary = temporaryBeside(target);
    await makeDirectory(dirname(temporary));
    sweepAbandoned(target);
    mkdirSync(temporary);
    await fill(temporary);
    await rename(temporary, target);
  } catch (error) {
    if (temporary !== undefined) await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw asStorageError(path, error);
  }
}

/** The path without links of what is not there, or of an empty directory that another can take the place of. */
function requireReplaceable(path: string): string {
  const full = resolve(path);
  if (lstatSync(full, { throwIfNoEntry: false }) === undefined) return full;
  const stats = statSync(full, { throwIfNoEntry: false });
  const hint = 'remove it or choose another directory';
  if (stats === undefined) throw new StorageError(path, 'is a link that leads nowhere', { hint });
  if (!stats.isDirectory()) throw new StorageError(path, 'exists and is not a directory');
  if (readdirSync(full).length > 0) throw new StorageError(path, 'exists and is not empty', { hint });
  const real = realpathSync(full);
  const kind =
    real === realpathSync('.')
      ? 'the current directory'
      : stats.dev !== statSync(dirname(real)).dev
        ? 'the root of a file system'
        : undefined;
  if (kind === undefined) return real;
  throw new StorageError(path, `is ${kind}, which cannot be replaced`, { hint: 'name a directory in it' });
}
