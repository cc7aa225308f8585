/** Stand-ins of torch and transformers, for benchmarks beside PyTorch where it is not installed. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const modules = fileURLToPath(new URL('pytorch', import.meta.url));

/** What a `python3` needs in its environment to find them; undefined, with the reason printed, where there is none. */
export function standInPyTorch(): Readonly<Record<string, string>> | undefined {
  if (spawnSync('python3', ['--version']).status === 0) {
    return { PYTHONPATH: modules, PYTHONDONTWRITEBYTECODE: '1' };
  }
  console.log('skipped: there is no python3, so that bench/peer/pytorch.py was not run');
  return undefined;
}
