/**
 * Fetches one blob into the cache. Bytes collect in `<etag>.incomplete`; a broken connection, or the next run, asks
 * only for what is missing. The whole file is hashed from the disk before it gets its name, so a blob in the cache is
 * what the Hub says it is.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DownloadError } from '../../util/errors.js';
import { asStorageError, makeDirectory } from '../../util/files.js';
import { statFile } from '../json-file.js';
import type { HubConnection, OpenResponse } from './http.js';
import { RangeRefusedError, TransientError, openUrl, stopIfAborted, withRetries } from './http.js';
import type { HubFile } from './list.js';
import { withLock } from './lock.js';

/** Where a blob goes. */
export interface BlobPlace {
  readonly blobsDir: string;
  readonly locksDir: string;
}

/** Makes sure that the blob of `file` is complete in the cache; `onBytes` hears how much of it is there. */
export async function downloadBlob(
  hub: HubConnection,
  commit: string,
  file: HubFile,
  { blobsDir, locksDir }: BlobPlace,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const blob = join(blobsDir, file.etag);
  const incomplete = `${blob}.incomplete`;
  const complete = () => statFile(blob)?.size === file.bytes;
  if (!complete()) {
    await makeDirectory(blobsDir).catch((error: unknown) => Promise.reject(asStorageError(blobsDir, error) as Error));
    await withLock(join(locksDir, `${file.etag}.kloop.lock`), hub.signal, async () => {
      // Another process may have finished it while we waited.
      if (complete()) return;
      const url = `${hub.endpoint}/${hub.repo}/resolve/${commit}/${encodeURIComponent(file.name)}`;
      await fetchVerified(hub, url, file, incomplete, onBytes);
      await rename(incomplete, blob).catch((error: unknown) => Promise.reject(asStorageError(blob, error) as Error));
    });
  }
  onBytes(file.bytes);
  return blob;
}

/** Wrong bytes are thrown away, and fetched once more: an old partial file may be to blame. */
async function fetchVerified(
  hub: HubConnection,
  url: string,
  file: HubFile,
  path: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    await fetchAll(hub, url, file, path, onBytes);
    const actual = await hashFile(path, file, hub.signal);
    if (actual === file.etag) return;
    await rm(path, { force: true });
    onBytes(0);
    if (attempt === 2) {
      throw new DownloadError(
        `${url}: the bytes do not match their hash (${file.hash} ${actual}, expected ${file.etag})`,
        {
          hint: 'the server or something on the way changes them; try again later or from another network',
        },
      );
    }
  }
}

async function fetchAll(
  hub: HubConnection,
  url: string,
  file: HubFile,
  path: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  let output: FileHandle;
  let have: number;
  try {
    // Created if it is not there, kept if it is.
    output = await open(path, 'a');
    have = (await output.stat()).size;
  } catch (error) {
    throw asStorageError(path, error);
  }
  const restart = async () => {
    await output.truncate(0);
    have = 0;
    onBytes(0);
  };
  let before = have;
  const progressed = () => {
    const more = have > before;
    before = have;
    return more;
  };
  try {
    if (have > file.bytes) await restart();
    onBytes(have);
    const attempt = async () => {
      if (have === file.bytes) return;
      const open = await openUrl(hub, url, have > 0 ? { range: `bytes=${have}-` } : {}).catch(
        async (error: unknown) => {
          if (error instanceof RangeRefusedError) await restart();
          throw error;
        },
      );
      try {
        if (have > 0 && !continuesAt(open, have, file.bytes)) {
          // A part answer to another question cannot be used; a whole one can, from the beginning.
          await restart();
          if (open.response.status === 206) throw new TransientError('the server sends another part of the file');
        }
        for await (const piece of open.body()) {
          if (have + piece.length > file.bytes) {
            await restart();
            throw new DownloadError(`${url}: the server sends more than the ${file.bytes} bytes it announced`);
          }
          await output.writeFile(piece);
          have += piece.length;
          onBytes(have);
        }
      } finally {
        open.close();
      }
      if (have < file.bytes) throw new TransientError(`the connection ended after ${have} of ${file.bytes} bytes`);
    };
    await withRetries(hub, attempt, progressed);
    await output.sync();
  } catch (error) {
    throw asStorageError(path, error);
  } finally {
    await output.close();
  }
}

/** Whether the answer is the rest of the file from `have` on. */
function continuesAt({ response }: OpenResponse, have: number, bytes: number): boolean {
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '');
  const total = range?.[3];
  return response.status === 206 && Number(range?.[1]) === have && (total === '*' || Number(total) === bytes);
}

/** The hash that names the blob; git hashes a small header before the content. */
async function hashFile(path: string, file: HubFile, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash(file.hash === 'sha256' ? 'sha256' : 'sha1');
  if (file.hash === 'git-sha1') hash.update(`blob ${file.bytes}\0`);
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) {
      stopIfAborted(signal);
      hash.update(piece as Buffer);
    }
  } catch (error) {
    throw asStorageError(path, error);
  }
  return hash.digest('hex');
}
