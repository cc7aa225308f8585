/**
 * Where compiled kernels and packed weights are kept: XDG_CACHE_HOME/kloop, else ~/.cache/kloop. A relative XDG_CACHE_HOME
 * is ignored, as its specification wants it.
 */
import { homedir, userInfo } from 'node:os';
import { isAbsolute, join } from 'node:path';

export function defaultCacheDir(): string {
  const base = process.env['XDG_CACHE_HOME'] ?? '';
  if (isAbsolute(base)) return join(base, 'kloop');
  // HOME may be set, and empty.
  return join(homedir() || userInfo().homedir, '.cache', 'kloop');
}
