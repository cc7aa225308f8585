import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StorageError } from './errors.js';
import { asStorageError, createDirectoryAtomic, writeFileAtomic } from './files.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kloop-files-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** What the operating system throws when the disk is full. */
const diskFull = () =>
  Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', syscall: 'write' });

describe('writeFileAtomic', () => {
  it('replaces a file, creating directories', async () => {
    const path = join(dir, 'a', 'b');
    await writeFileAtomic(path, async (file) => file.writeFile('one'));
    await writeFileAtomic(path, async (file) => file.writeFile('two'));
    expect(readFileSync(path, 'utf8')).toBe('two');
    expect(readdirSync(join(dir, 'a'))).toEqual(['b']);
  });

  it('keeps the old content and leaves nothing behind when writing fails', async () => {
    const path = join(dir, 'a');
    writeFileSync(path, 'old');
    const failing = writeFileAtomic(path, async (file) => {
      await file.write('half');
      throw diskFull();
    });
    await expect(failing).rejects.toThrow(StorageError);
    await expect(failing).rejects.toThrow(/a: no space left on the disk; free some space/);
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(readdirSync(dir)).toEqual(['a']);
  });

  it('says so when a part of the path is a file', async () => {
    writeFileSync(join(dir, 'a'), '');
    await expect(writeFileAtomic(join(dir, 'a', 'b'), () => Promise.resolve())).rejects.toThrow(StorageError);
  });
});

describe('createDirectoryAtomic', () => {
  const put = (directory: string) => writeFile(join(directory, 'x'), 'x');

  it('creates a directory, or fills an empty one', async () => {
    await createDirectoryAtomic(join(dir, 'new', 'deep'), put);
    mkdirSync(join(dir, 'empty'));
    await createDirectoryAtomic(join(dir, 'empty'), put);
    expect(readdirSync(join(dir, 'new', 'deep'))).toEqual(['x']);
    expect(readdirSync(dir).sort()).toEqual(['empty', 'new']);
  });

  it('refuses an occupied place, and cleans up after a failure', async () => {
    writeFileSync(join(dir, 'file'), '');
    await expect(createDirectoryAtomic(dir, put)).rejects.toThrow('exists and is not empty');
    await expect(createDirectoryAtomic(join(dir, 'file'), put)).rejects.toThrow('is not a directory');
    await expect(createDirectoryAtomic(join(dir, 'd'), () => Promise.reject(diskFull() as Error))).rejects.toThrow(
      StorageError,
    );
    expect(readdirSync(dir)).toEqual(['file']);
  });
});

it('asStorageError leaves other errors alone', () => {
  const error = new Error('x');
  expect(asStorageError('f', error)).toBe(error);
});
