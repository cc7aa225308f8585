/**
 * Downloads a model from a Hugging Face Hub into the standard cache (`models--OWNER--NAME/{blobs,refs,snapshots}`),
 * only the files kloop reads. A snapshot gets its ref, by which it is found, when all of it is there.
 */
import { copyFile, readlink, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { z } from 'zod';
import { show } from '../../util/checked.js';
import { DownloadError } from '../../util/errors.js';
import { asStorageError, errorCode, makeDirectory, temporaryBeside, writeFileAtomic } from '../../util/files.js';
import { readJsonFile } from '../json-file.js';
import { downloadBlob } from './download.js';
import type { HubConnection } from './http.js';
import type { HubFile, HubListing } from './list.js';
import { listModel } from './list.js';
import {
  checkEndpoint,
  checkRepo,
  checkRevision,
  checkToken,
  commitPattern,
  hubCacheDir,
  hubEndpoint,
  hubToken,
  repoFolder,
} from './settings.js';

export interface PullProgress {
  readonly doneBytes: number;
  /** Grows once, when the index of a sharded model has told which files belong to it. */
  readonly totalBytes: number;
}

export interface PullOptions {
  /** Branch, tag or commit; `main` if not given. */
  readonly revision?: string;
  readonly token?: string;
  readonly endpoint?: string;
  readonly cacheDir?: string;
  readonly signal?: AbortSignal;
  onProgress?(progress: PullProgress): void;
  /** First wait before a request is repeated; doubles each time. */
  readonly retryDelayMs?: number;
  /** Silence on a connection after which it is given up. */
  readonly idleTimeoutMs?: number;
}

const parallelDownloads = 3;
const indexName = 'model.safetensors.index.json';
const maxIndexBytes = 64 * 1024 * 1024;

/** Pulls `OWNER/NAME` and returns its snapshot directory. Throws DownloadError, StorageError, UsageError, AbortedError. */
export async function pullModel(repo: string, options: PullOptions = {}): Promise<string> {
  const revision = checkRevision(options.revision ?? 'main');
  const hub: HubConnection = {
    endpoint: options.endpoint === undefined ? hubEndpoint() : checkEndpoint(options.endpoint),
    repo: checkRepo(repo),
    token: options.token === undefined ? hubToken() : checkToken(options.token),
    signal: options.signal,
    retryDelayMs: options.retryDelayMs ?? 500,
    idleTimeoutMs: options.idleTimeoutMs ?? 60_000,
  };
  const cacheDir = options.cacheDir ?? hubCacheDir();
  const folder = repoFolder(cacheDir, repo);
  const listing = await listModel(hub, revision);
  const snapshot = join(folder, 'snapshots', listing.commit);
  const place = {
    blobsDir: join(folder, 'blobs'),
    locksDir: join(cacheDir, '.locks', `models--${repo.replace('/', '--')}`),
  };
  const progress = progressOf(options);
  const fetchFiles = async (files: readonly HubFile[]) => {
    progress.expect(files);
    await inParallel(files, async (file) => {
      const blob = await downloadBlob(hub, listing.commit, file, place, (bytes) => progress.report(file, bytes));
      await link(blob, join(snapshot, file.name));
    });
  };
  const { small, single } = chooseFiles(hub, listing);
  await fetchFiles(small);
  await fetchFiles(single === undefined ? shardsOf(hub, listing, join(snapshot, indexName)) : [single]);
  if (!commitPattern.test(revision)) {
    const ref = join(folder, 'refs', revision);
    await writeFileAtomic(ref, (file) => file.writeFile(listing.commit));
  }
  return snapshot;
}

/** Everything but weights, and the weights where they are one file. */
function chooseFiles(hub: HubConnection, { files }: HubListing): { small: HubFile[]; single: HubFile | undefined } {
  const small = [...files.values()].filter(({ name }) => !name.includes('.safetensors') || name === indexName);
  for (const name of ['config.json', 'tokenizer.json']) {
    if (!files.has(name))
      throw new DownloadError(`${hub.repo}: the repository has no ${name}`, { hint: 'kloop cannot run it' });
  }
  const index = files.get(indexName);
  const single = index === undefined ? files.get('model.safetensors') : undefined;
  if (index === undefined && single === undefined) {
    throw new DownloadError(`${hub.repo}: the repository has no model.safetensors`, {
      hint: 'kloop reads safetensors only; look for a converted copy of the model',
    });
  }
  if (index !== undefined && index.bytes > maxIndexBytes) {
    throw new DownloadError(
      `${hub.repo}: ${indexName} is ${index.bytes} bytes long, at most ${maxIndexBytes} are read`,
    );
  }
  return { small, single };
}

/** The shards that the index names; other safetensors of a repository are copies in another layout. */
function shardsOf(hub: HubConnection, { files }: HubListing, indexPath: string): HubFile[] {
  const index = z
    .object({ weight_map: z.record(z.string(), z.string()) })
    .safeParse(readJsonFile(indexPath, maxIndexBytes));
  if (!index.success) throw new DownloadError(`${hub.repo}: ${indexName} has no weight_map of file names`);
  return [...new Set(Object.values(index.data.weight_map))].map((name) => {
    const file = files.get(name);
    if (file === undefined)
      throw new DownloadError(`${hub.repo}: ${indexName} names ${show(name)}, which is not there`);
    return file;
  });
}

function progressOf(options: PullOptions): {
  expect(files: readonly HubFile[]): void;
  report(file: HubFile, bytes: number): void;
} {
  const done = new Map<string, number>();
  let totalBytes = 0;
  return {
    expect: (files) => {
      for (const file of files) totalBytes += file.bytes;
    },
    report: (file, bytes) => {
      done.set(file.name, bytes);
      const doneBytes = [...done.values()].reduce((sum, value) => sum + value, 0);
      options.onProgress?.({ doneBytes, totalBytes });
    },
  };
}

/** A few at a time; the first failure ends the others at their next file. */
async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  let failed = false;
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined && !failed; item = queue.shift()) {
      try {
        await work(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  // All must have ended before the caller goes on: none may write after the error has been reported.
  const results = await Promise.allSettled(Array.from({ length: parallelDownloads }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Points `path` at the blob with a relative link, or copies where links are not allowed (Windows). */
async function link(blob: string, path: string): Promise<void> {
  const target = relative(dirname(path), blob);
  const temporary = temporaryBeside(path);
  try {
    if ((await readlink(path).catch(() => undefined)) === target) return;
    await makeDirectory(dirname(path));
    await symlink(target, temporary).catch((error: unknown) => {
      if (errorCode(error) === 'EPERM' || errorCode(error) === 'ENOSYS') return copyFile(blob, temporary);
      throw error;
    });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw asStorageError(path, error);
  }
}
