import { spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { StorageError } from './errors.js';
import { asStorageError, createDirectoryAtomic, makeDirectory, temporaryDirectory, writeFileAtomic } from './files.js';

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

describe('makeDirectory', () => {
  it('makes all that is missing, and takes what is there', async () => {
    const path = join(dir, 'a', 'b', 'c');
    await Promise.all([makeDirectory(path), makeDirectory(path)]);
    await makeDirectory(path);
    expect(existsSync(path)).toBe(true);
  });

  it('gives up where a file is in the way, a link leads nowhere, or nothing can be made', async () => {
    await writeFile(join(dir, 'file'), '');
    symlinkSync(join(dir, 'nowhere', 'x'), join(dir, 'link'));
    await expect(makeDirectory(join(dir, 'file'))).rejects.toThrow('EEXIST');
    await expect(makeDirectory(join(dir, 'file', 'x'))).rejects.toThrow('ENOTDIR');
    await expect(makeDirectory(join(dir, 'link', 'x'))).rejects.toThrow('ENOENT');
    if (existsSync('/proc/self')) await expect(makeDirectory('/proc/kloop')).rejects.toThrow(/ENOENT|EACCES|EPERM/);
  });
});

describe('what a killed process left', () => {
  /** Of a process that has ended, unless it is ours. */
  const left = (name: string, { pid = spawnSync('true').pid, minutes = 60 } = {}): string => {
    const temporary = `.${name}.${pid}.0123456789ab.tmp`;
    writeFileSync(join(dir, temporary), 'half');
    const then = new Date(Date.now() - minutes * 60_000);
    utimesSync(join(dir, temporary), then, then);
    return temporary;
  };

  it('is removed by the next who writes there, and nothing else is', async () => {
    left('a');
    const others = [left('ab'), left('a', { pid: process.pid }), left('a', { minutes: 1 }), '.a.tmp', '.a.1.x.tmp'];
    for (const name of ['.a.tmp', '.a.1.x.tmp']) writeFileSync(join(dir, name), '');
    await writeFileAtomic(join(dir, 'a'), async (file) => file.writeFile('x'));
    expect(readdirSync(dir).sort()).toEqual([...others, 'a'].sort());
  });

  it('is removed with what is in it', async () => {
    const directory = await temporaryDirectory(dir, 'work');
    await writeFile(join(directory, 'x'), '');
    const abandoned = join(dir, left('work'));
    rmSync(abandoned);
    renameSync(directory, abandoned);
    utimesSync(abandoned, 0, 0);
    const next = await temporaryDirectory(dir, 'work');
    expect(readdirSync(dir)).toEqual([basename(next)]);
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

  it('fills the empty directory that a link leads to', async () => {
    mkdirSync(join(dir, 'elsewhere', 'empty'), { recursive: true });
    symlinkSync(join('elsewhere', 'empty'), join(dir, 'link'));
    await createDirectoryAtomic(join(dir, 'link'), put);
    expect(readdirSync(join(dir, 'elsewhere', 'empty'))).toEqual(['x']);
    expect(readdirSync(dir).sort()).toEqual(['elsewhere', 'link']);
    expect(lstatSync(join(dir, 'link')).isSymbolicLink()).toBe(true);
  });

  it('refuses what cannot be replaced before anything is made', async () => {
    let filled = 0;
    const fill = () => {
      filled += 1;
      return Promise.resolve();
    };
    symlinkSync(join(dir, 'nowhere'), join(dir, 'link'));
    await expect(createDirectoryAtomic(join(dir, 'link'), fill)).rejects.toThrow('link: is a link that leads nowhere');
    mkdirSync(join(dir, 'empty'));
    const cwd = vi.spyOn(process, 'cwd').mockReturnValue(join(dir, 'empty'));
    const current = createDirectoryAtomic('.', fill);
    await expect(current).rejects.toThrow(
      '.: is the current directory, which cannot be replaced; name a directory in it',
    );
    cwd.mockRestore();
    expect(filled).toBe(0);
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
