/** The read bandwidth of the device's memory: a kernel that only reads, over a buffer that no cache holds. */
import { readFileSync } from 'node:fs';
import type { BandwidthMeter } from '../backend.js';
import type { CudaCompiler } from './compilers.js';
import { Taken, viewOf, type CudaDriver, type DeviceInfo } from './driver.js';
import { launchBytes, writeLaunch } from './setup.js';
import { compileImage } from './toolchain.js';
import type { Target } from './target.js';
import { ToolchainError } from '../../util/errors.js';
import { formatBytes } from '../../util/units.js';

const mib = 2 ** 20;
/** Many times the second-level cache of any device. */
const bufferMib = 4096;
/** Reads that are timed as one, so that launching them costs nothing. */
const reads = 16;
const threads = 512;
const blocksPerMultiprocessor = 4;

/** What engine.cuh wants to be told, though this kernel has neither ring nor work space. */
export const meterSource = `#define COMPUTE_WARPS ${threads / 32 - 1}
#define COMPUTE_THREADS (32 * COMPUTE_WARPS)
#define BLOCK_THREADS ${threads}
#define SLICE_BYTES 16
#define RING_SLOTS 2
#define ROWS_AT_ONCE 1
#define ROWS_BYTES 0
#define WORK_BYTES 0
#define WIDE_ROWS 0
#define OWN_BYTES 0ull
#include "device.cuh"
#include "engine.cuh"
#include "bandwidth.cuh"
`;

export interface MeterOptions {
  readonly driver: CudaDriver;
  readonly ordinal: number;
  readonly device: DeviceInfo;
  readonly target: Target;
  readonly compiler: CudaCompiler;
  readonly cacheDir: string;
}

/** @throws ToolchainError where the kernel cannot be compiled, or there is no room for the buffer */
export async function openCudaMeter(options: MeterOptions): Promise<BandwidthMeter> {
  const { driver, ordinal, target, compiler, cacheDir } = options;
  const image = await compileImage({ source: meterSource, target: target.name, cacheDir, compiler });
  const handle = driver.device(ordinal);
  const taken = new Taken();
  driver.enter(handle);
  taken.push(() => driver.leave(handle));
  try {
    return takeMeter(options, readFileSync(image), taken);
  } catch (error) {
    taken.giveBack();
    throw error;
  }
}

function takeMeter({ driver, device }: MeterOptions, image: Uint8Array, taken: Taken): BandwidthMeter {
  const free = driver.freeBytes();
  const sizeMib = Math.min(bufferMib, Math.floor(free / 2 / mib));
  if (sizeMib === 0) {
    throw new ToolchainError(`there is no memory to measure the bandwidth of: ${formatBytes(free)} are free`, {
      hint: 'end what else uses the GPU',
    });
  }
  const bytes = sizeMib * mib;
  const module = driver.loadModule(image);
  taken.push(() => driver.call('cuModuleUnload', module));
  const kernel = driver.functionOf(module, 'read_once', 0);
  const stream = driver.createStream();
  taken.push(() => driver.call('cuStreamDestroy_v2', stream));
  const buffer = driver.allocate(bytes);
  taken.push(() => driver.free(buffer));
  const host = driver.allocateHost(8 + launchBytes);
  taken.push(() => driver.freeHost(host));
  driver.call('cuMemsetD8Async', buffer, 0, bytes, stream);
  const launch = new DataView(viewOf(host, 8 + launchBytes));
  launch.setBigUint64(0, host + 8n, true);
  const nothing = { own: 0n, counters: 0n, mailbox: 0n, tokens: 0n, samples: 0, number: 0, firstArgument: 0 };
  writeLaunch(new DataView(launch.buffer, 8), { arena: buffer, weights: buffer, rows: sizeMib, ...nothing });
  const blocks = blocksPerMultiprocessor * device.multiprocessors;
  const read = (): void => driver.call('cuLaunchKernel', kernel, blocks, 1, 1, threads, 1, 1, 0, stream, host, 0n);
  return {
    threads: device.multiprocessors,
    bytes,
    measure: () => {
      read();
      driver.call('cuStreamSynchronize', stream);
      const start = process.hrtime.bigint();
      for (let i = 0; i < reads; i++) read();
      driver.call('cuStreamSynchronize', stream);
      return (reads * bytes) / (Number(process.hrtime.bigint() - start) / 1e9);
    },
    close: () => taken.giveBack(),
  };
}
