/**
 * One process at a time per blob, by a lock file with the holder's process id. A lock whose holder is gone is taken
 * over; should two ever hold one after all, the hash check of the download still keeps wrong bytes out of the cache.
 */
import { open, readFile, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { asStorageError, errorCode, makeDirectory } from '../../util/files.js';
import { stopIfAborted } from './http.js';

const pollMs = 100;
const refreshMs = 20_000;
/** A holder that has not refreshed its lock for so long is gone, whatever now bears its process id. */
const staleMs = 120_000;

/** Runs `work` while holding `path`. Waits for another holder as long as it lives. Throws StorageError, AbortedError. */
export async function withLock<T>(path: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  while (!(await tryLock(path))) {
    stopIfAborted(signal);
    if (await isStale(path)) await rm(path, { force: true });
    else await sleep(pollMs);
  }
  const refresh = setInterval(() => {
    const now = new Date();
    // A lost lock is no reason to stop: see above.
    utimes(path, now, now).catch(() => undefined);
  }, refreshMs);
  try {
    return await work();
  } finally {
    clearInterval(refresh);
    await rm(path, { force: true });
  }
}

async function tryLock(path: string): Promise<boolean> {
  try {
    await makeDirectory(dirname(path));
    const file = await open(path, 'wx');
    await file.writeFile(`${process.pid} ${hostname()}`).finally(() => file.close());
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw asStorageError(path, error);
  }
}

async function isStale(path: string): Promise<boolean> {
  try {
    const [pid, host] = (await readFile(path, 'utf8')).split(' ');
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > staleMs) return true;
    // Between creating and writing, a lock is empty for a moment. Ours may be held by another call of this process.
    return host === hostname() && Number(pid) !== process.pid && !isAlive(Number(pid));
  } catch (error) {
    // Released meanwhile; the next attempt decides.
    if (errorCode(error) === 'ENOENT') return false;
    throw asStorageError(path, error);
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}
