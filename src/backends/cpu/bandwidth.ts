/**
 * The read bandwidth of this machine's memory: bandwidth.c, compiled as the kernels are and with their loads, over a
 * buffer that no cache holds. It is the roofline of `bench` and `doctor`. On a shared machine it changes from minute to
 * minute, so whoever compares with it measures it again in between.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { assert } from '../../util/assert.js';
import { ToolchainError } from '../../util/errors.js';
import { availableMemory } from '../../util/memory.js';
import { median } from '../../util/statistics.js';
import type { BandwidthMeter } from '../backend.js';
import { defaultCacheDir } from '../cache-dir.js';
import { chooseInstructionSet } from './instruction-set.js';
import { loadShared } from './library.js';
import { physicalCores } from './processors.js';
import { compileLibrary, findCompiler, supportSource } from './toolchain.js';

export interface BandwidthOptions {
  /** Threads that read at a time; default: one per core. */
  readonly threads?: number;
  /** Size of the buffer; default: `defaultBufferBytes()`. */
  readonly bytes?: number;
  /** Times that every thread reads its part; default: once. More for a buffer that caches hold. */
  readonly passes?: number;
  /** Directory for the compiled code; the standard cache where absent. */
  readonly cacheDir?: string;
}

const gib = 2 ** 30;
const mib = 2 ** 20;

/**
 * Allocates and touches the buffer.
 * @throws ToolchainError where there is no compiler or too little memory, StorageError where the cache cannot be written
 */
export async function openBandwidthMeter(options: BandwidthOptions = {}): Promise<BandwidthMeter> {
  const { threads = physicalCores(), bytes = defaultBufferBytes(), cacheDir = defaultCacheDir() } = options;
  const { passes = 1 } = options;
  const compiler = await findCompiler();
  if (compiler === undefined) {
    throw new ToolchainError('measuring the memory bandwidth takes a C compiler (cc, gcc or clang)', {
      hint: 'install one; Debian: apt install gcc',
    });
  }
  const instructionSet = chooseInstructionSet();
  const source = supportSource('bandwidth.c');
  const library = loadShared(await compileLibrary({ source, instructionSet, cacheDir, compiler }));
  const allocate = library.func('void *kloop_bandwidth_buffer(double bytes)');
  const free = library.func('void kloop_bandwidth_free(void *buffer, double bytes)');
  const pass = library.func('double kloop_bandwidth(const void *buffer, double bytes, int threads, int passes)');
  let buffer: unknown = allocate(bytes);
  if (buffer === null) {
    throw new ToolchainError(`there is no memory for a buffer of ${bytes} bytes to measure the bandwidth with`, {
      hint: 'close other programs',
    });
  }
  return {
    threads,
    bytes,
    measure: (area) => {
      assert(buffer !== null, 'the bandwidth meter is closed');
      return pass(area?.address ?? buffer, area?.bytes ?? bytes, threads, passes) as number;
    },
    close: () => {
      if (buffer !== null) free(buffer, bytes);
      buffer = null;
    },
  };
}

/** The median of several passes, in bytes per second. Throws what `openBandwidthMeter` throws. */
export async function measureReadBandwidth(options: BandwidthOptions = {}, passes = 7): Promise<number> {
  const meter = await openBandwidthMeter(options);
  try {
    return median(Array.from({ length: passes }, () => meter.measure()));
  } finally {
    meter.close();
  }
}

/** 1 GiB, or four times the last-level caches where that is more; at most a quarter of the memory that is free. */
export function defaultBufferBytes(
  freeBytes: number = availableMemory(),
  cacheBytes: number = lastLevelCacheBytes(),
): number {
  const wanted = Math.max(gib, 4 * cacheBytes);
  return Math.max(mib, Math.floor(Math.min(wanted, freeBytes / 4) / mib) * mib);
}

const cpuDirectory = '/sys/devices/system/cpu';

/** Bytes of all last-level caches together; 0 where the system does not tell. */
export function lastLevelCacheBytes(directory: string = cpuDirectory): number {
  const sizes = new Map<string, number>();
  let deepest = 0;
  for (const cpu of listed(directory).filter((name) => /^cpu\d+$/.test(name))) {
    for (const index of listed(join(directory, cpu, 'cache'))) {
      const text = (file: string): string => readText(join(directory, cpu, 'cache', index, file));
      const level = Number(text('level'));
      const bytes = parseSize(text('size'));
      if (!(level >= deepest) || bytes === 0) continue;
      if (level > deepest) sizes.clear();
      deepest = level;
      // Processors that share a cache name the same ones.
      sizes.set(text('shared_cpu_list'), bytes);
    }
  }
  return [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** `32768K` as the kernel writes it. */
function parseSize(text: string): number {
  const [, count, unit] = /^(\d+)([KMG]?)$/.exec(text) ?? [];
  const factor = { '': 1, K: 2 ** 10, M: mib, G: gib }[unit ?? ''] ?? 1;
  return count === undefined ? 0 : Number(count) * factor;
}

function listed(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}
