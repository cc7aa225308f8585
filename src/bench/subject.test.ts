import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CheckpointError, UsageError } from '../util/errors.js';
import { ggufOf, openSubject, type Subject, type SubjectOptions } from './subject.js';

const cacheDir = mkdtempSync(join(tmpdir(), 'kloop-subject-'));
afterAll(() => rmSync(cacheDir, { recursive: true }));

const notices: string[] = [];
const options: SubjectOptions = {
  ...{ quant: 'bf16', cacheDir },
  onBytes: () => undefined,
  onNotice: (line) => notices.push(line),
};

/** Opens, looks, and closes. */
async function within<T>(
  spec: string,
  more: Partial<SubjectOptions>,
  look: (subject: Subject) => T,
): Promise<Awaited<T>> {
  const subject = await openSubject(spec, { ...options, ...more });
  try {
    return await look(subject);
  } finally {
    subject.checkpoint.weights.close();
  }
}

describe('openSubject', () => {
  it('writes a preset once for every precision, and says so', async () => {
    const describeIt = ({ synthetic, checkpoint }: Subject): unknown => [
      synthetic,
      checkpoint.config.name,
      checkpoint.config.dtype,
      checkpoint.config.vocab,
    ];
    notices.length = 0;
    expect(await within('tinystories-15m', {}, describeIt)).toEqual([true, 'tinystories-15m', 'bf16', 32000]);
    expect(notices).toEqual([expect.stringContaining('random bf16 weights')]);
    expect(await within('tinystories-15m', {}, ({ checkpoint }) => checkpoint.path)).toContain(cacheDir);
    expect(notices).toHaveLength(1);
    // Narrower formats are made from the precision that was published.
    expect(await within('TinyStories-15M', { quant: 'q8_0' }, ({ checkpoint }) => checkpoint.config.dtype)).toBe('f32');
    expect(notices).toHaveLength(2);
  });

  it('knows nothing else that is not there', async () => {
    await expect(openSubject('no-such-preset', options)).rejects.toThrow(CheckpointError);
  });
});

describe('ggufOf', () => {
  it('writes the same weights once for every format', async () => {
    notices.length = 0;
    const write = (quant: 'bf16' | 'q4_0'): Promise<string> =>
      within('tinystories-15m', {}, ({ checkpoint }) => ggufOf(checkpoint, quant, options));
    const file = await write('bf16');
    expect(readFileSync(file).subarray(0, 4).toString()).toBe('GGUF');
    const { mtimeMs, size } = statSync(file);
    expect(await write('bf16')).toBe(file);
    expect(statSync(file).mtimeMs).toBe(mtimeMs);
    expect(notices).toEqual([expect.stringContaining('as GGUF for llama.cpp')]);
    const smaller = await write('q4_0');
    expect(smaller).not.toBe(file);
    expect(statSync(smaller).size).toBeLessThan(size / 2);
  });

  it('refuses what llama.cpp has no format for', async () => {
    const writing = within('tinystories-15m', {}, ({ checkpoint }) => ggufOf(checkpoint, 'i32', options));
    await expect(writing).rejects.toThrow(UsageError);
  });
});
