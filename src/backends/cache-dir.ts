/** Where compiled kernels and packed weights are kept: XDG_CACHE_HOME/kloop, else ~/.cache/kloop. */
import { homedir } from 'node:os';
import { join } from 'node:path';

export function defaultCacheDir(): string {
  const base = process.env['XDG_CACHE_HOME'];
  return join(base === undefined || base === '' ? join(homedir(), '.cache') : base, 'kloop');
}
