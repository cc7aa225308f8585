/**
 * Random weights at the shapes of a model as a packed file at once, for measuring: no checkpoint is written, and none is
 * packed, which takes minutes at 16 GB. Values are drawn as `writeSynthetic` draws them. Both backends read the same file.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { packedFile, writeAt } from '../../dist/checkpoint/packed.js';
import { spreadOf } from '../../dist/checkpoint/synth.js';
import { createNoise } from '../../dist/checkpoint/synth-noise.js';
import { paddedColumns } from '../../dist/ir/packed-layout.js';
import { temporaryBeside } from '../../dist/util/files.js';

/** Stands for a checkpoint that has no files: what is in it can only be read from its packed file. */
export function noiseWeights(config) {
  const fingerprint = createHash('sha256')
    .update(`noise ${JSON.stringify(config)}`)
    .digest('hex');
  const absent = (name) => {
    throw new Error(`${name} is only in a packed file, which is missing`);
  };
  return {
    ...{ path: 'random weights', fingerprint, names: () => [], has: () => false },
    ...{ describe: absent, read: absent, readF32: absent, close: () => undefined },
  };
}

/**
 * Makes the packed file of this program where it is not in the cache.
 * @returns bytes that were written
 */
export async function writePackedNoise(program, config, cacheDir) {
  const { path, bytes, weights } = packedFile(program, noiseWeights(config).fingerprint, cacheDir);
  if (existsSync(path) && statSync(path).size === bytes) return 0;
  mkdirSync(dirname(path), { recursive: true });
  // Not writeFileAtomic: waiting until 16 GB are on the disk would take a part of the time that there is.
  const temporary = temporaryBeside(path);
  const noises = new Map();
  const file = await open(temporary, 'w');
  try {
    for (const { source, tensor, placement } of weights) {
      const { dtype, shape } = tensor;
      const columns = shape.at(-1);
      if (shape.length === 2 && paddedColumns(columns) !== columns) throw new Error(`${source}: odd number of columns`);
      const noise = noises.get(dtype) ?? createNoise('0', dtype);
      noises.set(dtype, noise);
      let at = placement.offset;
      const elements = placement.bytes / (dtype === 'f32' ? 4 : 2);
      for (const piece of noise.pieces(source, elements, spreadOf({ name: source, shape }, config))) {
        await writeAt(file, piece, at);
        at += piece.length;
      }
    }
    await file.truncate(bytes);
    renameSync(temporary, path);
  } finally {
    await file.close();
    rmSync(temporary, { force: true });
  }
  return bytes;
}
