/**
 * The memory of one model on the device: weights, everything that is written, each block's own part, counters. What the host
 * and the device exchange goes through one piece of pinned memory, neighbours in one copy.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { ToolchainError } from '../../util/errors.js';
import { formatBytes } from '../../util/units.js';
import { CudaError, Taken, viewOf, type Address, type CudaDriver } from './driver.js';
import { countersLayout, launchBytes, mailboxWords, writeLaunch, type CudaSetup } from './setup.js';

/** Weights go to the device in pieces of this size. */
const uploadBytes = 32 << 20;
/** Of the pinned memory: the mailbox, the parameters of a launch, counters, what is exchanged, and then shown tokens. */
const paramsAt = 256;
const countersAt = 512;
export const exchangeAt = 1024;

export class DeviceMemory {
  readonly arena: Address;
  readonly stream: Address;
  readonly mailbox: Int32Array;
  /** Bytes on the host that are exchanged, from `exchangeAt` on. */
  readonly exchange: ArrayBuffer;
  /** Tokens that a running kernel shows. */
  readonly tokens: Int32Array;
  private readonly host: Address;
  private readonly own: Address;
  private readonly weights: Address;
  private readonly counters: Address;
  private readonly tokensAt: number;

  /**
   * @param tokens the most that a launch can show
   * @param taken gets what gives back all that is taken, also where this throws
   * @throws ToolchainError where the device has too little memory
   */
  constructor(
    private readonly driver: CudaDriver,
    private readonly setup: CudaSetup,
    exchangeBytes: number,
    tokens: number,
    private readonly taken: Taken,
  ) {
    const { arenaBytes, ownBytes, weightBytes, threads } = setup;
    if (bytesNeeded(setup) > driver.freeBytes()) throw this.tooLittle();
    this.stream = driver.createStream();
    taken.push(() => driver.call('cuStreamDestroy_v2', this.stream));
    this.arena = this.allocate(arenaBytes);
    this.own = this.allocate(ownBytes * threads);
    this.weights = this.allocate(weightBytes);
    this.counters = this.allocate(countersLayout.bytes);
    this.tokensAt = Math.ceil((exchangeAt + exchangeBytes) / 64) * 64;
    this.host = driver.allocateHost(this.tokensAt + 4 * tokens);
    taken.push(() => driver.freeHost(this.host));
    this.exchange = viewOf(this.host, this.tokensAt + 4 * tokens);
    this.tokens = new Int32Array(this.exchange, this.tokensAt, tokens);
    this.mailbox = new Int32Array(this.exchange, 0, mailboxWords.count).fill(0);
    this.clear(this.arena, arenaBytes);
    this.clear(this.counters, countersLayout.bytes);
    this.upload();
  }

  private allocate(bytes: number): Address {
    let address: Address;
    try {
      address = this.driver.allocate(bytes);
    } catch (error) {
      // Others may have taken it meanwhile, or no piece is large enough.
      throw error instanceof CudaError && error.outOfMemory ? this.tooLittle(error) : error;
    }
    this.taken.push(() => this.driver.free(address));
    return address;
  }

  private tooLittle(cause?: CudaError): ToolchainError {
    const { setup } = this;
    const states = setup.states.reduce((sum, [, bytes]) => sum + bytes, 0);
    const parts = [
      `${formatBytes(setup.weightBytes)} of weights`,
      `${formatBytes(states)} of KV cache`,
      `${formatBytes(bytesNeeded(setup) - setup.weightBytes - states)} of work space`,
    ];
    const [needed, free] = [bytesNeeded(setup), this.driver.freeBytes()].map(formatBytes);
    return new ToolchainError(`the model needs ${needed!} on the GPU (${parts.join(', ')}), and ${free!} are free`, {
      hint: 'use a shorter --context, --quant q8_0 or q4_0, a smaller model, or --backend cpu',
      ...(cause === undefined ? {} : { cause }),
    });
  }

  /** Where another thread can write the mailbox. */
  get hostAddress(): Address {
    return this.host;
  }

  clear(address: Address, bytes: number): void {
    if (bytes > 0) this.driver.call('cuMemsetD8Async', address, 0, bytes, this.stream);
  }

  synchronize(): void {
    this.driver.call('cuStreamSynchronize', this.stream);
  }

  /** The packed weights, through pinned memory. */
  private upload(): void {
    const { weightBytes, weightsPath, loadedBytes } = this.setup;
    const size = Math.min(uploadBytes, Math.max(weightBytes, 1));
    const staging = this.driver.allocateHost(size);
    const rest = new Taken();
    rest.push(() => this.driver.freeHost(staging));
    try {
      const file = openSync(weightsPath, 'r');
      rest.push(() => closeSync(file));
      const bytes = new Uint8Array(viewOf(staging, size));
      for (let done = 0; done < weightBytes;) {
        const wanted = Math.min(size, weightBytes - done);
        const read = readSync(file, bytes, 0, wanted, done);
        if (read === 0) throw new ToolchainError(`${weightsPath} ends after ${formatBytes(done)}`);
        this.driver.call('cuMemcpyHtoDAsync_v2', this.weights + BigInt(done), staging, read, this.stream);
        this.synchronize();
        done += read;
        loadedBytes[0] = done;
      }
    } finally {
      // Where the driver fails, it is the first error that says why.
      rest.giveBack();
    }
  }

  /** Copies bytes of the arena in or out, at `at` of what is exchanged. */
  toDevice(offset: number, at: number, bytes: number): void {
    this.driver.call('cuMemcpyHtoDAsync_v2', this.arena + BigInt(offset), this.host + BigInt(at), bytes, this.stream);
  }
  toHost(offset: number, at: number, bytes: number): void {
    this.driver.call('cuMemcpyDtoHAsync_v2', this.host + BigInt(at), this.arena + BigInt(offset), bytes, this.stream);
  }

  /** Writes struct launch; returns the address of the list of parameters that launches want. */
  writeLaunch(rows: number, samples: number, number: number, firstArgument: number): Address {
    const view = new DataView(this.exchange, paramsAt, 8 + launchBytes);
    view.setBigUint64(0, this.host + BigInt(paramsAt + 8), true);
    const mailbox = this.driver.deviceAddressOf(this.host);
    const { arena, weights, own, counters } = this;
    const addresses = { arena, weights, own, counters, mailbox, tokens: mailbox + BigInt(this.tokensAt) };
    writeLaunch(new DataView(this.exchange, paramsAt + 8), { ...addresses, rows, samples, number, firstArgument });
    return this.host + BigInt(paramsAt);
  }

  /** Hand-offs, bytes read, nanoseconds waited; once the stream is done. */
  readCounters(): [number, number, number] {
    const from = this.counters + BigInt(countersLayout.readAt);
    const { readBytes } = countersLayout;
    this.driver.call('cuMemcpyDtoHAsync_v2', this.host + BigInt(countersAt), from, readBytes, this.stream);
    this.synchronize();
    const [handOffs, bytesRead, waitNs] = new BigUint64Array(this.exchange, countersAt, 3);
    return [Number(handOffs), Number(bytesRead), Number(waitNs)];
  }
}

/** Everything on the device. `threads`: multiprocessors. */
export function bytesNeeded({
  arenaBytes,
  ownBytes,
  weightBytes,
  threads,
}: Pick<CudaSetup, 'arenaBytes' | 'ownBytes' | 'weightBytes' | 'threads'>): number {
  return arenaBytes + ownBytes * threads + weightBytes + countersLayout.bytes;
}
