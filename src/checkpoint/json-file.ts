/**
 * Small text files of a checkpoint. Size and kind are checked before anything is read (a pipe would hang, a huge file
 * would fill the memory), and every error names the file.
 */
import type { Stats } from 'node:fs';
import { readFileSync, statSync } from 'node:fs';
import { plain } from '../util/checked.js';
import { CheckpointError, messageOf } from '../util/errors.js';
import { errorCode } from '../util/files.js';

/** Size and times of a regular file, or undefined where there is none. */
export function statFile(path: string): Stats | undefined {
  let stats: Stats;
  try {
    stats = statSync(path);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new CheckpointError(path, messageOf(error), { cause: error });
  }
  if (!stats.isFile()) throw new CheckpointError(path, 'is not a regular file');
  return stats;
}

/** The text of a file of at most `maxBytes`, or undefined where there is none. Throws CheckpointError. */
export function readTextFile(path: string, maxBytes: number): string | undefined {
  const stats = statFile(path);
  if (stats === undefined) return undefined;
  if (stats.size > maxBytes) {
    throw new CheckpointError(path, `is ${stats.size} bytes long, at most ${maxBytes} are read`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path));
  } catch (error) {
    const reason = errorCode(error) === 'ERR_ENCODING_INVALID_ENCODED_DATA' ? 'is not UTF-8 text' : messageOf(error);
    throw new CheckpointError(path, reason, { cause: error });
  }
}

/** The parsed content of a JSON file of at most `maxBytes`, or undefined where there is none. Throws CheckpointError. */
export function readJsonFile(path: string, maxBytes: number): unknown {
  const text = readTextFile(path, maxBytes);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new CheckpointError(path, `is not valid JSON (${plain(messageOf(error), 120)})`, { cause: error });
  }
}

/** As readJsonFile, and the file must be there. */
export function requireJsonFile(path: string, maxBytes: number, hint: string): unknown {
  const json = readJsonFile(path, maxBytes);
  if (json === undefined) throw new CheckpointError(path, 'no such file', { hint });
  return json;
}
