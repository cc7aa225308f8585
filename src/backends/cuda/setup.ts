/** What the worker thread of the cuda backend is told, and where it can be told to stop. */
import type { Name } from '../../ir/program.js';
import type { WorkerSetup } from '../messages.js';
import type { Address } from './driver.js';
import type { EmittedCall } from './emit/program.js';
import { maxKvHeads } from './target.js';

export interface CudaSetup extends WorkerSetup {
  readonly driverPath: string;
  readonly ordinal: number;
  readonly imagePath: string;
  readonly weightsPath: string;
  readonly weightBytes: number;
  readonly arenaBytes: number;
  /** Of one block. */
  readonly ownBytes: number;
  /** Whether the calls of a step are launched as one graph where they are many, or one by one. */
  readonly launches: 'graph' | 'single';
  /** Whether kernels of a graph may begin while those before them end. */
  readonly dependentLaunch: boolean;
  /** For every program, its kernel calls. */
  readonly calls: readonly (readonly EmittedCall[])[];
  /** What the numbers of hand-offs stand for. */
  readonly places: readonly string[];
  /** Offsets into the arena of all values that are not weights. */
  readonly offsets: ReadonlyMap<Name, number>;
  /** Bytes of every state. */
  readonly states: readonly (readonly [Name, number])[];
  /** One element, on shared memory: bytes of weights that are on the device. */
  readonly loadedBytes: Float64Array;
}

/** struct mailbox of engine.cuh, as 32-bit words. */
export const mailboxWords = { aborted: 0, trouble: 1, block: 2, stage: 3, arrived: 4, expected: 5, count: 16 } as const;

/** What a block stores as `trouble` when all the other words are there. */
export const troubleTold = 2;

/** RING_STAGE of engine.cuh. */
export const ringStage = -1;

const countersBefore = 24 + 4 * maxKvHeads;
/** struct counters of engine.cuh: bytes of it, and of what the host reads, behind the others. */
export const countersLayout = { bytes: countersBefore + 24, readAt: countersBefore, readBytes: 24 } as const;

/** Launches use three counters in turn (`arrivals` of engine.cuh), so that their numbers begin anew at a multiple of it. */
export const launchNumbers = 3 * 2 ** 30;

/** The number of the launch after this one. */
export function launchAfter(number: number): number {
  return (number + 1) % launchNumbers;
}

/** struct launch of engine.cuh, in bytes. */
export const launchBytes = 64;

/** The fields of struct launch that are addresses, and those that are numbers, in their order. */
export interface LaunchFields {
  readonly arena: Address;
  readonly weights: Address;
  readonly own: Address;
  readonly counters: Address;
  readonly mailbox: Address;
  readonly tokens: Address;
  readonly rows: number;
  readonly samples: number;
  readonly number: number;
  readonly firstArgument: number;
}

export function writeLaunch(view: DataView, fields: LaunchFields): void {
  const { arena, weights, own, counters, mailbox, tokens, rows, samples, number, firstArgument } = fields;
  const addresses = [arena, weights, own, counters, mailbox, tokens];
  addresses.forEach((address, index) => view.setBigUint64(8 * index, address, true));
  const numbers = [rows, samples, number, firstArgument];
  numbers.forEach((value, index) => view.setUint32(8 * addresses.length + 4 * index, value, true));
}
