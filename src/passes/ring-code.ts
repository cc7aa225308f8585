/**
 * What the generated code of one kernel does with its ring of weights and with the counters of its hand-offs, as data. An
 * emitter notes each step with the very words it prints it by; check-ring.ts holds the steps against the program, which
 * the emitter had no part in. Two sides run beside each other in every worker: one fetches, the other computes.
 */
import type { Dim, DType, Name } from '../ir/program.js';

export interface RingCode {
  readonly kernel: Name;
  /** Of each call of the kernel: the offset of each argument in the packed weights; undefined for what lies elsewhere. */
  readonly places: readonly (readonly (number | undefined)[])[];
  /** The side that fetches; nothing where the kernel has no matrices. */
  readonly stream: readonly RingStep[];
  readonly compute: readonly RingStep[];
}

export type RingStep =
  /** `pointer` = the argument with this index. */
  | { readonly kind: 'argument'; readonly pointer: string; readonly index: number }
  /** `pointer` = `of`, and `stride` bytes more for every iteration of the loop over `over`. */
  | {
      readonly kind: 'member';
      readonly pointer: string;
      readonly of: string;
      readonly over: Name;
      readonly stride: number;
    }
  /** `units` = the worker's even part of `total` units: part w of W begins at floor(total * w / W). */
  | { readonly kind: 'part'; readonly units: string; readonly total: number }
  /** `units` = those of `of` that are the `count` units from `first` on, numbered from 0. */
  | {
      readonly kind: 'within';
      readonly units: string;
      readonly of: string;
      readonly first: number;
      readonly count: number;
    }
  /** Fetches the tiles `units` of a matrix, slice by slice, once for every group of rows. */
  | (MatrixStep & { readonly kind: 'copy'; readonly from: string })
  /** Takes the same slices from the ring, and frees each before it takes the next. */
  | (MatrixStep & { readonly kind: 'take'; readonly outputs: number })
  | { readonly kind: 'stage'; readonly name: Name; readonly body: readonly RingStep[] }
  /** Counts the worker, and waits for all of them. @see HandOffWhen */
  | { readonly kind: 'handOff'; readonly place: number; readonly when: HandOffWhen }
  /** `trip` times, or, where it may end, until all agree after an iteration's last hand-off. */
  | {
      readonly kind: 'loop';
      readonly over: Name;
      readonly trip: number;
      readonly mayEnd: boolean;
      readonly body: readonly RingStep[];
    }
  /** Done by some workers only, or not equally often by all. */
  | { readonly kind: 'apart'; readonly body: readonly RingStep[] };

/** Always, or only in launches of many rows: all workers know alike. */
export type HandOffWhen = 'always' | 'many rows';

export interface MatrixStep {
  readonly format: DType;
  readonly rows: Dim;
  /** Columns of the matrix. */
  readonly width: number;
  /** Tiles of the matrix, by name. */
  readonly units: string;
  readonly tileBytes: number;
  /** The most of a tile that is one slice. */
  readonly sliceBytes: number;
}

/** The ring of one worker, and the memory that it lies in. */
export interface Ring {
  readonly slots: number;
  readonly slotBytes: number;
  /** Bytes in front of the slots, for two barriers of 8 bytes a slot and what else is there; and behind them. */
  readonly before: number;
  readonly behind: number;
  /** What a launch asks for, and the most that the machine has. */
  readonly bytes: number;
  readonly mostBytes: number;
  /** The most workers that there can be. */
  readonly mostWorkers: number;
}
