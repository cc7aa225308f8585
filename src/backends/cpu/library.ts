/** The compiled library as typed functions: koffi's calls, and nothing else of it. */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { ToolchainError, messageOf } from '../../util/errors.js';
import type { StageTime } from '../backend.js';
import type { EngineAddress } from '../messages.js';
import type { ProfiledStage } from './emit/profile.js';
import type { CpuSetup } from './setup.js';

export type EngineSetup = Pick<CpuSetup, 'weightsPath' | 'threads' | 'processors' | 'spans' | 'largePages'>;

export interface KernelLibrary {
  /** @throws ToolchainError with the library's own reason */
  open(setup: EngineSetup): EngineAddress;
  close(engine: EngineAddress): void;
  launch(engine: EngineAddress, program: number, call: number, rows: number, samples: number): void;
  write(engine: EngineAddress, offset: number, from: Int32Array | Float32Array): void;
  read(engine: EngineAddress, offset: number, to: Int32Array | Float32Array): void;
  clear(engine: EngineAddress, offset: number, bytes: number): void;
  abort(engine: EngineAddress, aborted: boolean): void;
  /** Address of the weights. */
  weights(engine: EngineAddress): bigint;
  /** Kernel calls, barriers, bytes read, nanoseconds waited. */
  counters(engine: EngineAddress): [number, number, number, number];
}

const errorBytes = 256;

/** @throws ToolchainError where the library cannot be loaded */
export function loadLibrary(path: string): KernelLibrary {
  const library = loadShared(path);
  const open = library.func(
    'void *kloop_open(const char *path, int threads, const int32_t *processors, const double *spans, int span_count, ' +
      'int large_pages, uint8_t *error, int error_size)',
  );
  const close = library.func('void kloop_close(void *engine)');
  const launch = library.func('void kloop_launch(void *engine, int program, int call, int rows, int samples)');
  const write = library.func('void kloop_write(void *engine, double offset, const void *from, double bytes)');
  const read = library.func('void kloop_read(void *engine, double offset, void *to, double bytes)');
  const clear = library.func('void kloop_clear(void *engine, double offset, double bytes)');
  const abort = library.func('void kloop_abort(void *engine, int aborted)');
  const weights = library.func('const void *kloop_weights(void *engine)');
  const counters = library.func('void kloop_counters(void *engine, double *counters)');
  return {
    open({ weightsPath, threads, processors, spans, largePages }) {
      const error = new Uint8Array(errorBytes);
      const count = spans.length / 2;
      const large = largePages ? 1 : 0;
      const engine: unknown = open(weightsPath, threads, processors, spans, count, large, error, errorBytes);
      if (engine === null) {
        const text = Buffer.from(error).toString('utf8').replace(/\0.*$/s, '');
        throw new ToolchainError(`the model could not be started: ${text}`);
      }
      return koffi.address(engine);
    },
    close: (engine) => void close(engine),
    launch: (engine, program, call, rows, samples) => void launch(engine, program, call, rows, samples),
    write: (engine, offset, from) => void write(engine, offset, from, from.byteLength),
    read: (engine, offset, to) => void read(engine, offset, to, to.byteLength),
    clear: (engine, offset, bytes) => void clear(engine, offset, bytes),
    abort: (engine, aborted) => void abort(engine, aborted ? 1 : 0),
    weights: (engine) => koffi.address(weights(engine)),
    counters(engine) {
      const values = new Float64Array(4);
      counters(engine, values);
      return [values[0]!, values[1]!, values[2]!, values[3]!];
    },
  };
}

/** Reads what a library that was emitted for profiling has counted, in the order of `stages`. */
export function stageTimes(path: string, stages: readonly ProfiledStage[]): () => readonly StageTime[] {
  const read = loadShared(path).func('void kloop_profile(double *nanoseconds, double *count, int stages)');
  return () => {
    const nanoseconds = new Float64Array(stages.length);
    const count = new Float64Array(stages.length);
    read(nanoseconds, count, stages.length);
    return stages.map((stage, i) => ({ ...stage, count: count[i]!, nanoseconds: nanoseconds[i]! }));
  };
}

/** @throws ToolchainError that names the file */
export function loadShared(path: string): ReturnType<typeof koffi.load> {
  try {
    return koffi.load(path);
  } catch (error) {
    throw new ToolchainError(`${path}: cannot load the compiled kernels: ${messageOf(error)}`, {
      hint: 'check that the cache directory is on a file system that allows execution',
      cause: error,
    });
  }
}

/** Whether a library is there and can be loaded, as far as that can be seen without calling it. */
export function isLoadable(path: string): boolean {
  try {
    // What is cut off is not loaded even to try: the first touch of what is missing would end the process.
    if (isCutOff(readFileSync(path))) return false;
    loadShared(path);
    return true;
  } catch {
    return false;
  }
}

/** Of an ELF file of 64 bits: whether its section headers, which linkers write last, are beyond its end. */
function isCutOff(file: Buffer): boolean {
  if (file.length < 64) return true;
  const isElf64 = file.readUInt32BE(0) === 0x7f454c46 && file.readUInt8(4) === 2 && file.readUInt8(5) === 1;
  if (!isElf64) return false;
  const sections = { offset: file.readBigUInt64LE(40), bytes: file.readUInt16LE(58) * file.readUInt16LE(60) };
  return sections.offset + BigInt(sections.bytes) > BigInt(file.length);
}
