/**
 * Where the Hub is and where its cache lies, by the same rules as huggingface_hub: explicit options first, then
 * HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME. Models pulled by Python are found here, and the other
 * way round.
 */
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { plain, show } from '../../util/checked.js';
import { UsageError } from '../../util/errors.js';
import { readTextFile } from '../json-file.js';

export type Environment = Readonly<Record<string, string | undefined>>;

/** `~` at the beginning means the home directory, as the Python tools have it. */
function expandHome(path: string): string {
  return path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path;
}

function hubHome(env: Environment): string {
  if (env['HF_HOME']) return expandHome(env['HF_HOME']);
  return join(env['XDG_CACHE_HOME'] ? expandHome(env['XDG_CACHE_HOME']) : join(homedir(), '.cache'), 'huggingface');
}

/** Directory of the `models--OWNER--NAME` folders. */
export function hubCacheDir(env: Environment = process.env): string {
  const own = env['HF_HUB_CACHE'] || env['HUGGINGFACE_HUB_CACHE'];
  return own ? expandHome(own) : join(hubHome(env), 'hub');
}

/** Base address without a trailing slash. Throws UsageError where it is not an http(s) address, or nobody may be asked. */
export function hubEndpoint(env: Environment = process.env): string {
  if (/^(1|on|yes|true)$/i.test(env['HF_HUB_OFFLINE'] ?? '')) {
    throw new UsageError('nothing is downloaded, since HF_HUB_OFFLINE is set', {
      hint: 'unset it; what has been pulled runs without a network',
    });
  }
  return checkEndpoint(env['HF_ENDPOINT'] || 'https://huggingface.co');
}

export function checkEndpoint(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url !== undefined && [url.username, url.password, url.search, url.hash].some((part) => part !== '')) {
    const hint = 'give the address alone in HF_ENDPOINT, and a token in HF_TOKEN';
    throw new UsageError('the Hub address holds a name, a password or a query', { hint });
  }
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UsageError(`the Hub address ${show(endpoint)} is not an http(s) address`, { hint: 'check HF_ENDPOINT' });
  }
  return endpoint.replace(/\/+$/, '');
}

/** HF_TOKEN, or the token that `hf auth login` stored; undefined where there is none. */
export function hubToken(env: Environment = process.env): string | undefined {
  const file = env['HF_TOKEN_PATH'] ? expandHome(env['HF_TOKEN_PATH']) : join(hubHome(env), 'token');
  const stored = env['HF_TOKEN'] || env['HUGGING_FACE_HUB_TOKEN'] || readTextFile(file, 4096);
  const token = stored?.trim();
  return token === undefined || token === '' ? undefined : checkToken(token);
}

export function checkToken(token: string): string {
  // It goes into a header; the value itself must not appear in a message.
  if (!/^[\x21-\x7e]+$/.test(token)) throw new UsageError('the Hub token holds characters that no token has');
  return token;
}

/** `OWNER/NAME`, safe to put into paths and addresses. Throws UsageError. */
export function checkRepo(repo: string): string {
  if (!isRepo(repo)) throw new UsageError(`${show(repo)} is not a Hub model`, { hint: 'write OWNER/NAME' });
  return repo;
}

/** Whether it has the form `OWNER/NAME`. The separator of the cache, `--`, must not be part of it. */
export function isRepo(repo: string): boolean {
  return repo.length <= 200 && /^\w[\w.-]*\/\w[\w.-]*$/.test(repo) && !repo.includes('--') && !repo.includes('..');
}

/** A branch, tag or commit, safe to put into paths. Throws UsageError. */
export function checkRevision(revision: string): string {
  const safe = /^\w[\w./-]*$/.test(revision) && !revision.includes('..') && !revision.includes('//');
  if (!safe || isAbsolute(revision) || revision.endsWith('/')) {
    throw new UsageError(`${plain(revision, 60)} is not a revision`, { hint: 'give a branch, a tag or a commit' });
  }
  return revision;
}

/** The cache folder of a model. */
export function repoFolder(cacheDir: string, repo: string): string {
  return join(cacheDir, `models--${checkRepo(repo).replace('/', '--')}`);
}

export const commitPattern = /^[0-9a-f]{40}$/;
