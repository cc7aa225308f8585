/**
 * Which matrices of a checkpoint fit bf16z. All weights have to be looked at, so the answer is kept beside the packed files. It
 * is one for all layers: a loop over layers has one kernel.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { compressedGroup, tileRows } from '../ir/packed-layout.js';
import { AbortedError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { isCompressible } from './compress.js';
import { readJsonFile } from './json-file.js';
import { readRows } from './read-rows.js';
import type { Weights } from './weights.js';

export interface ScanOptions {
  readonly cacheDir: string;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

/** A matrix of bf16, whatever it is stored in. */
export interface Candidate {
  readonly name: string;
  readonly shape: readonly [rows: number, columns: number];
}

/** Changes when the layout of bf16z does. */
const scanVersion = 1;
const maxAnswerBytes = 1 << 20;
const chunkElements = 4 << 20;

const answerSchema = z.object({ compressible: z.array(z.string()) });

/**
 * Names of the candidates that fit, together with the same matrix of all other layers.
 * @throws CheckpointError for weights that are not finite, StorageError where the cache cannot be written
 */
export async function compressibleTensors(
  weights: Weights,
  candidates: readonly Candidate[],
  { cacheDir, onProgress, signal }: ScanOptions,
): Promise<ReadonlySet<string>> {
  const key = JSON.stringify([scanVersion, weights.fingerprint, candidates]);
  const path = join(cacheDir, `compressible-${createHash('sha256').update(key).digest('hex').slice(0, 32)}.json`);
  const known = answerSchema.safeParse(readAnswer(path));
  if (known.success) return new Set(known.data.compressible);
  const refused = new Set<string>();
  const total = candidates.reduce((sum, { shape: [rows, columns] }) => sum + 2 * rows * columns, 0);
  let done = 0;
  for (const { name, shape } of candidates) {
    if (signal?.aborted === true) throw new AbortedError('reading weights was stopped');
    const kind = kindOf(name);
    if (!refused.has(kind) && !fits(weights, name, shape)) refused.add(kind);
    done += 2 * shape[0] * shape[1];
    onProgress?.(done, total);
    // Long work lets others run.
    await new Promise(setImmediate);
  }
  const compressible = candidates.map(({ name }) => name).filter((name) => !refused.has(kindOf(name)));
  await writeFileAtomic(path, async (file) => {
    await file.writeFile(`${JSON.stringify({ compressible })}\n`);
  });
  return new Set(compressible);
}

/** A broken answer is none: it is made again. */
function readAnswer(path: string): unknown {
  try {
    return readJsonFile(path, maxAnswerBytes);
  } catch {
    return undefined;
  }
}

/** `model.layers.*.mlp.up_proj.weight` */
function kindOf(name: string): string {
  return name.replace(/\.\d+\./g, '.*.');
}

function fits(weights: Weights, name: string, [rows, columns]: Candidate['shape']): boolean {
  if (columns % compressedGroup !== 0) return false;
  const rowsAtOnce = Math.max(1, Math.floor(chunkElements / columns / tileRows)) * tileRows;
  for (let row = 0; row < rows; row += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - row);
    if (!isCompressible(readRows(weights, name, row, count, 'bf16'), count, columns)) return false;
  }
  return true;
}
