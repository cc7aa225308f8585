/**
 * Memory that this process may still take. Node subtracts from the limit of a control group all that the group uses; that
 * counts files which the kernel keeps in memory only until somebody needs the room, and whoever has just read or written
 * the weights of a model would seem to have nothing left.
 */
import { readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';

/** Bytes: of the machine, or of the control group where that has a limit. */
export function totalMemory(): number {
  const limit = process.constrainedMemory();
  return limit === 0 ? totalmem() : Math.min(limit, totalmem());
}

/** Bytes, of the same. */
export function availableMemory(): number {
  if (totalMemory() === totalmem()) return process.availableMemory();
  return Math.min(freemem(), process.availableMemory() + reclaimableBytes());
}

/**
 * Bytes of files in the memory of our control group that were not used lately: what the working set does not count. 0
 * where nothing is known. Linux, version 1 or 2 of control groups.
 * @param root where the system's files are, for tests
 */
export function reclaimableBytes(root = '/'): number {
  const membership = read(join(root, 'proc/self/cgroup')) ?? '';
  const mount = join(root, 'sys/fs/cgroup');
  const v1 = /^\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:(.*)$/m.exec(membership)?.[1];
  const v2 = /^0::(.*)$/m.exec(membership)?.[1];
  const places = v1 === undefined ? [join(mount, v2 ?? ''), mount] : [join(mount, 'memory', v1), join(mount, 'memory')];
  for (const place of places) {
    const stat = read(join(place, 'memory.stat'));
    // Version 1 counts groups below only in the total.
    const bytes = /^total_inactive_file (\d+)$/m.exec(stat ?? '') ?? /^inactive_file (\d+)$/m.exec(stat ?? '');
    if (bytes !== null) return Number(bytes[1]);
  }
  return 0;
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
