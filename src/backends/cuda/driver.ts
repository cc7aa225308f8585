/**
 * The CUDA driver (libcuda) as typed calls: what this backend needs of it, and nothing else. Results other than success
 * become errors with the driver's own name and words. Source: CUDA Driver API 13.0, cuda.h.
 */
import koffi from 'koffi';
import { ToolchainError, messageOf } from '../../util/errors.js';

/** An address in the memory of the device, or of pinned memory of the host. */
export type Address = bigint;

/** `CUdevice_attribute`s. */
export const attributes = {
  multiprocessors: 16,
  major: 75,
  minor: 76,
  cooperativeLaunch: 95,
  sharedBytesPerBlock: 97,
} as const;

/** The table of cuda.h, as far as it is used. Handles and addresses are 64-bit numbers. */
const signatures = [
  'int cuInit(unsigned int flags)',
  'int cuGetErrorName(int error, _Out_ const char **name)',
  'int cuGetErrorString(int error, _Out_ const char **text)',
  'int cuDriverGetVersion(void *version)',
  'int cuDeviceGetCount(void *count)',
  'int cuDeviceGet(void *device, int ordinal)',
  'int cuDeviceGetName(void *name, int length, int device)',
  'int cuDeviceGetAttribute(void *value, int attribute, int device)',
  'int cuDevicePrimaryCtxRetain(void *context, int device)',
  'int cuDevicePrimaryCtxRelease_v2(int device)',
  'int cuCtxSetCurrent(uint64_t context)',
  'int cuMemGetInfo_v2(void *free, void *total)',
  'int cuMemAlloc_v2(void *address, size_t bytes)',
  'int cuMemFree_v2(uint64_t address)',
  'int cuMemHostAlloc(void *address, size_t bytes, unsigned int flags)',
  'int cuMemFreeHost(uint64_t address)',
  'int cuMemHostGetDevicePointer_v2(void *device, uint64_t host, unsigned int flags)',
  'int cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream)',
  'int cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream)',
  'int cuMemsetD8Async(uint64_t to, uint8_t value, size_t count, uint64_t stream)',
  'int cuMemsetD32Async(uint64_t to, uint32_t value, size_t count, uint64_t stream)',
  'int cuStreamCreate(void *stream, unsigned int flags)',
  'int cuStreamSynchronize(uint64_t stream)',
  'int cuStreamQuery(uint64_t stream)',
  'int cuStreamDestroy_v2(uint64_t stream)',
  'int cuModuleLoadData(void *module, const void *image)',
  'int cuModuleUnload(uint64_t module)',
  'int cuModuleGetFunction(void *function, uint64_t module, const char *name)',
  'int cuFuncSetAttribute(uint64_t function, int attribute, int value)',
  'int cuStreamBeginCapture_v2(uint64_t stream, int mode)',
  'int cuStreamEndCapture(uint64_t stream, void *graph)',
  'int cuGraphInstantiateWithFlags(void *executable, uint64_t graph, uint64_t flags)',
  'int cuGraphLaunch(uint64_t executable, uint64_t stream)',
  'int cuGraphExecDestroy(uint64_t executable)',
  'int cuGraphDestroy(uint64_t graph)',
  'int cuLaunchKernel(uint64_t function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, uint64_t stream, uint64_t params, uint64_t extra)',
  'int cuLaunchKernelEx(const void *config, uint64_t function, uint64_t params, uint64_t extra)',
  'int cuLaunchCooperativeKernel(uint64_t function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, uint64_t stream, uint64_t params)',
] as const;

type NameIn<S extends string> = S extends `int ${infer N}(${string}` ? N : never;
export type DriverCall = NameIn<(typeof signatures)[number]>;

const CUDA_ERROR_OUT_OF_MEMORY = 2;
const CUDA_ERROR_NOT_READY = 600;
const CU_MEMHOSTALLOC_PORTABLE = 1;
const CU_MEMHOSTALLOC_DEVICEMAP = 2;
const CU_STREAM_NON_BLOCKING = 1;
const CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1;
const CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
const CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9;

export interface DeviceInfo {
  readonly name: string;
  readonly major: number;
  readonly minor: number;
  readonly multiprocessors: number;
  readonly sharedBytesPerBlock: number;
  /** Whether it launches kernels whose blocks wait for each other. */
  readonly cooperativeLaunch: boolean;
}

/** The driver said no. */
export class CudaError extends ToolchainError {
  constructor(
    readonly call: DriverCall,
    readonly code: number,
    text: string,
  ) {
    super(`the CUDA driver refused ${call}: ${text}`);
  }

  get outOfMemory(): boolean {
    return this.code === CUDA_ERROR_OUT_OF_MEMORY;
  }
}

export class CudaDriver {
  private readonly calls: ReadonlyMap<string, (...args: unknown[]) => unknown>;

  /** @throws ToolchainError where there is no driver, or an older one */
  constructor(readonly path: string) {
    this.calls = loadCalls(path);
    this.call('cuInit', 0);
  }

  /** @throws CudaError */
  call(name: DriverCall, ...args: readonly unknown[]): void {
    const code = this.raw(name, ...args);
    if (code !== 0) throw new CudaError(name, code, this.describe(code));
  }

  /** Fills 64 bits of `name`'s first argument. */
  private getBig(name: DriverCall, ...args: readonly unknown[]): bigint {
    const out = new BigUint64Array(1);
    this.call(name, out, ...args);
    return out[0]!;
  }

  private getInt(name: DriverCall, ...args: readonly unknown[]): number {
    const out = new Int32Array(1);
    this.call(name, out, ...args);
    return out[0]!;
  }

  /** Whether everything on the stream has ended. */
  isIdle(stream: Address): boolean {
    const code = this.raw('cuStreamQuery', stream);
    if (code !== 0 && code !== CUDA_ERROR_NOT_READY) throw new CudaError('cuStreamQuery', code, this.describe(code));
    return code === 0;
  }

  private raw(name: DriverCall, ...args: readonly unknown[]): number {
    return this.calls.get(name)!(...args) as number;
  }

  private describe(code: number): string {
    const [name, text]: [string | null][] = [[null], [null]];
    this.raw('cuGetErrorName', code, name);
    this.raw('cuGetErrorString', code, text);
    return `${name?.[0] ?? `error ${code}`}${text?.[0] == null ? '' : ` (${text[0]})`}`;
  }

  get deviceCount(): number {
    return this.getInt('cuDeviceGetCount');
  }

  device(ordinal: number): number {
    return this.getInt('cuDeviceGet', ordinal);
  }

  info(device: number): DeviceInfo {
    const name = new Uint8Array(256);
    this.call('cuDeviceGetName', name, name.length, device);
    const attribute = (which: number): number => this.getInt('cuDeviceGetAttribute', which, device);
    return {
      name: Buffer.from(name).toString('utf8').replace(/\0.*$/s, ''),
      major: attribute(attributes.major),
      minor: attribute(attributes.minor),
      multiprocessors: attribute(attributes.multiprocessors),
      sharedBytesPerBlock: attribute(attributes.sharedBytesPerBlock),
      cooperativeLaunch: attribute(attributes.cooperativeLaunch) !== 0,
    };
  }

  /** Makes the device's context the one of this thread. */
  enter(device: number): void {
    const context = this.getBig('cuDevicePrimaryCtxRetain', device);
    try {
      this.call('cuCtxSetCurrent', context);
    } catch (error) {
      this.leave(device);
      throw error;
    }
  }

  leave(device: number): void {
    this.call('cuDevicePrimaryCtxRelease_v2', device);
  }

  freeBytes(): number {
    const total = new BigUint64Array(1);
    const free = new BigUint64Array(1);
    this.call('cuMemGetInfo_v2', free, total);
    return Number(free[0]);
  }

  allocate(bytes: number): Address {
    return this.getBig('cuMemAlloc_v2', Math.max(bytes, 1));
  }

  free(address: Address): void {
    this.call('cuMemFree_v2', address);
  }

  /** Memory of the host that kernels can read and write while they run; the device sees it at the same address. */
  allocateHost(bytes: number): Address {
    return this.getBig('cuMemHostAlloc', bytes, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
  }

  deviceAddressOf(host: Address): Address {
    return this.getBig('cuMemHostGetDevicePointer_v2', host, 0);
  }

  freeHost(address: Address): void {
    this.call('cuMemFreeHost', address);
  }

  createStream(): Address {
    return this.getBig('cuStreamCreate', CU_STREAM_NON_BLOCKING);
  }

  /** What `work` puts on the stream becomes a graph, which can be launched as one. */
  capture(stream: Address, work: () => void): Address {
    this.call('cuStreamBeginCapture_v2', stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    const graph = new BigUint64Array(1);
    try {
      work();
    } catch (error) {
      // What was captured is of no use; why is what counts.
      if (this.raw('cuStreamEndCapture', stream, graph) === 0) this.raw('cuGraphDestroy', graph[0]);
      throw error;
    }
    this.call('cuStreamEndCapture', stream, graph);
    try {
      return this.getBig('cuGraphInstantiateWithFlags', graph[0], 0n);
    } finally {
      this.raw('cuGraphDestroy', graph[0]);
    }
  }

  loadModule(image: Uint8Array): Address {
    return this.getBig('cuModuleLoadData', image);
  }

  functionOf(module: Address, name: string, sharedBytes: number): Address {
    const address = this.getBig('cuModuleGetFunction', module, name);
    this.call('cuFuncSetAttribute', address, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, sharedBytes);
    // A multiprocessor divides its memory into cache and shared memory alike for all that is on it at a time: a kernel that asks
    // for little must not wait until it can be divided anew.
    if (sharedBytes > 0)
      this.call('cuFuncSetAttribute', address, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
    return address;
  }
}

/** What gives back everything that was taken, in the order of taking. */
export class Taken {
  private readonly frees: (() => void)[] = [];

  push(free: () => void): void {
    this.frees.push(free);
  }

  /** The last that was taken first. A driver that has lost the context, or is about to say why, refuses much of it. */
  giveBack(): void {
    for (let free = this.frees.pop(); free !== undefined; free = this.frees.pop()) {
      try {
        free();
      } catch (error) {
        if (!(error instanceof CudaError)) throw error;
      }
    }
  }
}

/** Pinned memory as bytes of this thread. */
export function viewOf(address: Address, bytes: number): ArrayBuffer {
  return koffi.view(address, bytes);
}

function loadCalls(path: string): ReadonlyMap<string, (...args: unknown[]) => unknown> {
  let library;
  try {
    library = koffi.load(path);
  } catch (error) {
    throw new ToolchainError(`there is no CUDA driver (${path}): ${messageOf(error)}`, {
      hint: 'install the NVIDIA driver, or use --backend cpu',
      cause: error,
    });
  }
  const calls = new Map<string, (...args: unknown[]) => unknown>();
  for (const signature of signatures) {
    const name = /^int (\w+)\(/.exec(signature)![1]!;
    try {
      calls.set(name, library.func(signature) as (...args: unknown[]) => unknown);
    } catch (error) {
      throw new ToolchainError(`the CUDA driver ${path} is too old: it has no ${name}`, {
        hint: 'install a driver for CUDA 12 or newer',
        cause: error,
      });
    }
  }
  return calls;
}
