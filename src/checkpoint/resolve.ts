/**
 * What MODEL on the command line means: the bundled demo, a directory, a GGUF file, or a model of the Hub that has been
 * pulled. No network is used.
 */
import { statSync, type Stats } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findPreset } from '../models/presets.js';
import { plain } from '../util/checked.js';
import { CheckpointError, UsageError } from '../util/errors.js';
import { commitPattern, hubCacheDir, isRepo, repoFolder } from './hub/settings.js';
import { isGgufPath } from './gguf/path.js';
import { readTextFile, statFile } from './json-file.js';

/**
 * The absolute path of a model, its directory or its GGUF file: `demo`, a path, `OWNER/NAME` or `OWNER/NAME@REVISION`.
 * An existing path wins over a Hub name; `./demo` means a directory of that name. Throws CheckpointError that says what to do.
 */
export function resolveModel(spec: string, options: { readonly cacheDir?: string } = {}): string {
  // Two levels up from src/checkpoint as from dist/checkpoint.
  if (spec === 'demo') return fileURLToPath(new URL('../../demo', import.meta.url));
  if (spec === '') throw new UsageError('the name of the model is empty', { hint: specHint });
  if (isDirectory(spec)) return resolve(spec);
  if (isGgufPath(spec)) {
    if (statFile(spec) === undefined) throw new CheckpointError(plain(spec, 200), 'no such file', { hint: specHint });
    return resolve(spec);
  }
  const [repo = '', revision = 'main'] = spec.split('@');
  if (isRepo(repo) && spec.split('@').length <= 2)
    return pulledSnapshot(spec, repo, revision, options.cacheDir ?? hubCacheDir());
  const preset = findPreset(spec);
  if (preset !== undefined) {
    throw new CheckpointError(spec, 'is a preset, which has a shape and no weights', {
      hint: `run \`kloop synth ${preset.name} --out DIR\` for random weights, or \`kloop pull ${preset.source}\``,
    });
  }
  const what = isFile(spec) ? 'is a file, and neither a directory nor a .gguf file' : 'no such directory';
  throw new CheckpointError(plain(spec, 200), what, { hint: `${specHint}; \`kloop presets\` lists known shapes` });
}

const specHint = 'give a model directory, a .gguf file, `demo`, or OWNER/NAME after `kloop pull OWNER/NAME`';

function pulledSnapshot(spec: string, repo: string, revision: string, cacheDir: string): string {
  // An existing path wins, of whatever kind it is.
  if (isFile(spec))
    throw new CheckpointError(plain(spec, 200), 'is a file, and neither a directory nor a .gguf file', {
      hint: specHint,
    });
  const folder = repoFolder(cacheDir, repo);
  const missing = () =>
    new CheckpointError(plain(spec, 200), `neither a directory here nor a model in ${cacheDir}`, {
      hint: `run \`kloop pull ${repo}\``,
    });
  if (!/^\w[\w./-]*$/.test(revision) || revision.includes('..')) throw missing();
  const commit = commitPattern.test(revision) ? revision : readTextFile(join(folder, 'refs', revision), 4096)?.trim();
  if (commit === undefined || !commitPattern.test(commit)) throw missing();
  const snapshot = join(folder, 'snapshots', commit);
  if (!isDirectory(snapshot)) throw missing();
  return snapshot;
}

function isDirectory(path: string): boolean {
  return statsOf(path)?.isDirectory() ?? false;
}

function isFile(path: string): boolean {
  return statsOf(path)?.isFile() ?? false;
}

/** Undefined where it is not there, not allowed, or not even a possible path. */
function statsOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}
