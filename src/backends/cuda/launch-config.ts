/**
 * What cuLaunchKernelEx is told of a launch: CUlaunchConfig with one CUlaunchAttribute, laid out as cuda.h of CUDA 13.0 has
 * them. (The fields that it has in common with cuLaunchKernel mean the same.)
 */
import koffi from 'koffi';
import type { Address } from './driver.js';

/** CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION */
export const streamSerialization = 6;

/** The value is a union of 64 bytes; an int is all that this attribute has of it. */
export const launchAttribute = koffi.struct({
  id: 'int',
  padding: 'int',
  value: 'int',
  rest: koffi.array('uint8_t', 60),
});

export const launchConfig = koffi.struct({
  gridDimX: 'unsigned int',
  gridDimY: 'unsigned int',
  gridDimZ: 'unsigned int',
  blockDimX: 'unsigned int',
  blockDimY: 'unsigned int',
  blockDimZ: 'unsigned int',
  sharedMemBytes: 'unsigned int',
  hStream: 'uint64_t',
  attrs: koffi.pointer(launchAttribute),
  numAttrs: 'unsigned int',
});

/** Blocks of a grid, threads of a block, and what they get of shared memory; all grids of this backend are lines. */
export interface LaunchShape {
  readonly blocks: number;
  readonly threads: number;
  readonly sharedBytes: number;
  readonly stream: Address;
}

/**
 * A launch with programmatic stream serialization: the kernel may begin as soon as all blocks of the one before it on the
 * stream allow that or have ended, and itself waits for the end of that one before it touches what both use.
 */
export function dependentLaunch({ blocks, threads, sharedBytes, stream }: LaunchShape): unknown {
  const config = {
    ...{ gridDimX: blocks, gridDimY: 1, gridDimZ: 1, blockDimX: threads, blockDimY: 1, blockDimZ: 1 },
    ...{ sharedMemBytes: sharedBytes, hStream: stream },
    ...{ attrs: [{ id: streamSerialization, padding: 0, value: 1, rest: new Uint8Array(60) }], numAttrs: 1 },
  };
  return koffi.as(config, koffi.pointer(launchConfig));
}
