/**
 * The files of a model on the Hub that kloop reads, with size and hash, at one commit. Everything here comes from the
 * server, so names, sizes and hashes are checked before they become paths.
 */
import { show } from '../../util/checked.js';
import { DownloadError, KloopError, messageOf } from '../../util/errors.js';
import type { HubConnection } from './http.js';
import { boundedFetch } from './http.js';
import { commitPattern } from './settings.js';

export interface HubFile {
  /** A plain file name. */
  readonly name: string;
  readonly bytes: number;
  /** Names the blob in the cache: sha256 of the content for large files, the git object id for small ones. */
  readonly etag: string;
  readonly hash: 'sha256' | 'git-sha1';
}

export interface HubListing {
  /** 40 hex digits. */
  readonly commit: string;
  /** By name. */
  readonly files: ReadonlyMap<string, HubFile>;
}

const maxFiles = 100_000;
/** No weight file that exists is near it. */
const maxFileBytes = 2 ** 46;
const wanted = [
  /^(config|generation_config|special_tokens_map)\.json$/,
  /^tokenizer[\w.-]*\.json$/,
  /^chat_template[\w.-]*$/,
  /^[\w-][\w.-]*\.safetensors(\.index\.json)?$/,
];

/** Asks for the commit of a revision and its files. Throws DownloadError. */
export async function listModel(hub: HubConnection, revision: string): Promise<HubListing> {
  // Loaded here: most runs never talk to the Hub.
  const { listFiles, modelInfo } = await import('@huggingface/hub');
  const common = { hubUrl: hub.endpoint, fetch: boundedFetch(hub) };
  try {
    const info = await modelInfo({ ...common, name: hub.repo, revision, additionalFields: ['sha'] });
    const commit: unknown = info.sha;
    if (typeof commit !== 'string' || !commitPattern.test(commit)) throw strange(hub, `commit ${show(commit)}`);
    const files = new Map<string, HubFile>();
    let count = 0;
    for await (const entry of listFiles({ ...common, repo: { type: 'model', name: hub.repo }, revision: commit })) {
      count += 1;
      if (count > maxFiles) throw strange(hub, 'an endless list of files');
      const file = checkEntry(hub, entry);
      if (file !== undefined) files.set(file.name, file);
    }
    return { commit, files };
  } catch (error) {
    if (error instanceof KloopError) throw error;
    throw new DownloadError(`${hub.endpoint}: the list of files cannot be read (${messageOf(error)})`, {
      cause: error,
    });
  }
}

function strange(hub: HubConnection, what: string): DownloadError {
  return new DownloadError(`${hub.endpoint}: the server names ${what}`, { hint: 'is HF_ENDPOINT a Hugging Face Hub?' });
}

function checkEntry(hub: HubConnection, entry: unknown): HubFile | undefined {
  const { type, path, size, oid, lfs } = (entry ?? {}) as Record<string, unknown>;
  if (type !== 'file') return undefined;
  if (typeof path !== 'string' || path.startsWith('/') || /[\\\p{Cc}]/u.test(path) || path.split('/').includes('..')) {
    throw strange(hub, `a file ${show(path)}`);
  }
  if (!wanted.some((pattern) => pattern.test(path))) return undefined;
  const { oid: sha256, size: lfsSize } = (lfs ?? {}) as Record<string, unknown>;
  const bytes = lfs == null ? size : lfsSize;
  const etag = lfs == null ? oid : sha256;
  if (!Number.isSafeInteger(bytes) || (bytes as number) < 0 || (bytes as number) > maxFileBytes) {
    throw strange(hub, `a size of ${show(bytes)} for ${show(path)}`);
  }
  if (typeof etag !== 'string' || !(lfs == null ? /^[0-9a-f]{40}$/ : /^[0-9a-f]{64}$/).test(etag)) {
    throw strange(hub, `a hash ${show(etag)} for ${show(path)}`);
  }
  return { name: path, bytes: bytes as number, etag, hash: lfs == null ? 'git-sha1' : 'sha256' };
}
