import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { Workspace } from '../../tests/support/models.js';
import { seededRandom } from '../../tests/support/random-blocks.js';
import { AbortedError, CheckpointError } from '../util/errors.js';
import { compressibleTensors, type Candidate } from './compressible.js';
import type { Weights } from './weights.js';

const [rows, columns] = [32, 64];
const names = ['model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.weight', 'model.layers.11.mlp.up_proj.weight'];

function candidates(shape: Candidate['shape'] = [rows, columns]): Candidate[] {
  return names.map((name) => ({ name, shape }));
}

/** Weights in bf16; of the tensor `odd` any bits of finite numbers. Counts what is read. */
function weightsWith(odd: string | undefined, value?: number): Weights & { reads: number } {
  const random = seededRandom(2);
  const weights = {
    ...{ path: 'model.safetensors', fingerprint: `with ${odd ?? 'none'}`, reads: 0 },
    has: () => true,
    names: () => names,
    describe: (name: string) => ({ name, dtype: 'bf16' as const, shape: [rows, columns] }),
    read: (name: string, _first: number, count: number) => {
      weights.reads += 1;
      const bits = Uint16Array.from({ length: count * columns }, () => {
        if (name === odd) return value ?? Math.floor(random() * 0x7f80);
        return 0x3c00 + Math.floor(random() * 0x100);
      });
      return new Uint8Array(bits.buffer);
    },
    readF32: () => new Float32Array(),
    close: () => undefined,
  };
  return weights;
}

describe('compressibleTensors', () => {
  const workspace = new Workspace();
  afterAll(() => workspace.remove());
  let count = 0;
  let cacheDir: string;
  beforeEach(() => {
    cacheDir = workspace.path(`cache-${count++}`);
  });

  it('finds all matrices of usual weights', async () => {
    const progress: number[] = [];
    const options = { cacheDir, onProgress: (done: number, total: number) => progress.push(done / total) };
    const found = await compressibleTensors(weightsWith(undefined), candidates(), options);
    expect([...found]).toEqual(names);
    expect(progress).toEqual([1 / 3, 2 / 3, 1]);
  });

  it('leaves a matrix out in all layers where it does not fit in one', async () => {
    expect([...(await compressibleTensors(weightsWith(names[2]), candidates(), { cacheDir }))]).toEqual([names[0]]);
    expect([...(await compressibleTensors(weightsWith(names[0]), candidates(), { cacheDir }))]).toEqual(names.slice(1));
  });

  it('leaves out rows that are not whole groups', async () => {
    expect((await compressibleTensors(weightsWith(undefined), candidates([rows, 12]), { cacheDir })).size).toBe(0);
  });

  it('reads weights once, and again where its answer is broken', async () => {
    const weights = weightsWith(names[2]);
    await compressibleTensors(weights, candidates(), { cacheDir });
    const { reads } = weights;
    const again = async (): Promise<string[]> => [...(await compressibleTensors(weights, candidates(), { cacheDir }))];
    expect(await again()).toEqual([names[0]]);
    expect(weights.reads).toBe(reads);
    const [file] = readdirSync(cacheDir);
    const answer = readFileSync(join(cacheDir, file!));
    for (const broken of ['', '{"compressible": 1}', '{']) {
      writeFileSync(join(cacheDir, file!), broken);
      expect(await again()).toEqual([names[0]]);
      expect(readFileSync(join(cacheDir, file!))).toEqual(answer);
    }
    expect(weights.reads).toBe(4 * reads);
  });

  it('refuses weights that are not finite, and ends on a signal, leaving nothing', async () => {
    const infinite = compressibleTensors(weightsWith(names[1], 0x7f80), candidates(), { cacheDir });
    await expect(infinite).rejects.toThrow(CheckpointError);
    const stopped = compressibleTensors(weightsWith(undefined), candidates(), {
      cacheDir,
      signal: AbortSignal.abort(),
    });
    await expect(stopped).rejects.toThrow(AbortedError);
    expect(existsSync(cacheDir)).toBe(false);
  });
});
