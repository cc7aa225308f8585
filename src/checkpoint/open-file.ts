/** A file that is read by position, piece by piece. Kind and size are known before anything is read. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { CheckpointError, messageOf } from '../util/errors.js';
import { statFile } from './json-file.js';

/** Largest single read; the system call takes less than 2^31 bytes. */
const maxReadBytes = 1 << 30;

export interface OpenFile {
  readonly path: string;
  readonly size: number;
  readonly modifiedMs: number;
  /** Fills `target` from `offset` of the file on; a file that has become shorter is a CheckpointError. */
  readInto(target: Uint8Array, offset: number): void;
  close(): void;
}

/** Opens a regular file; the caller closes it. Throws CheckpointError. */
export function openForReading(path: string): OpenFile {
  // Before opening: opening a pipe would wait for its writer.
  if (statFile(path) === undefined) throw new CheckpointError(path, 'no such file');
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new CheckpointError(path, messageOf(error), { cause: error });
  }
  const { size, mtimeMs } = fstatSync(fd);
  return {
    path,
    size,
    modifiedMs: mtimeMs,
    readInto: (target, offset) => readFully(fd, path, target, offset),
    close: () => closeSync(fd),
  };
}

function readFully(fd: number, path: string, target: Uint8Array, offset: number): void {
  let done = 0;
  while (done < target.length) {
    const length = Math.min(maxReadBytes, target.length - done);
    let count: number;
    try {
      count = readSync(fd, target, done, length, offset + done);
    } catch (error) {
      throw new CheckpointError(path, messageOf(error), { cause: error });
    }
    if (count === 0)
      throw new CheckpointError(path, `ends at byte ${offset + done}, ${target.length - done} more expected`);
    done += count;
  }
}
