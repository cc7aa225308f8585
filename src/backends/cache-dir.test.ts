import { userInfo } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it, vi } from 'vitest';
import { defaultCacheDir } from './cache-dir.js';

afterEach(() => vi.unstubAllEnvs());

it.each([
  ['/cache', '/home/me', '/cache/kloop'],
  ['', '/home/me', '/home/me/.cache/kloop'],
  // A relative one is to be ignored.
  ['relative', '/home/me', '/home/me/.cache/kloop'],
  ['relative', '', join(userInfo().homedir, '.cache', 'kloop')],
])('XDG_CACHE_HOME=%s HOME=%s: %s', (cache, home, expected) => {
  vi.stubEnv('XDG_CACHE_HOME', cache);
  vi.stubEnv('HOME', home);
  expect(defaultCacheDir()).toBe(expected);
});
