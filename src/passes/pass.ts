/** What a pass is: one pure function per file, from a program to a program and a report. */
import type { Name, Program } from '../ir/program.js';

export interface Memory {
  readonly name: string;
  readonly bytes: number;
}

export interface PassContext {
  /** From the nearest to the farthest memory of the machine, as `Capabilities` has them. */
  readonly memories: readonly Memory[];
  readonly tileBytes: number;
  /** How many workers share a kernel. */
  readonly workers: number;
  /** Positions of a unit of attention, on machines that divide it by context; elsewhere it is divided by head only. */
  readonly contextBlock?: number;
  /** False where a projection is never divided by heads together with the attention that reads it. */
  readonly projectionsByHead?: boolean;
}

export interface PassResult {
  readonly program: Program;
  readonly report: Report;
}

export type Pass = (program: Program, context: PassContext) => PassResult;

/** What a pass has to say to a person; `explain` prints it. */
export interface Report {
  readonly pass: string;
  /** One line each. */
  readonly notes: readonly string[];
  readonly refusals: readonly Refusal[];
}

/** Why a run of calls was not looped, or not further than it was. */
export interface Refusal {
  readonly reason: RefusalReason;
  /** Index of the first call that could not join. */
  readonly call: number;
  readonly layer?: number;
  /** The parameter at fault, where it is one. */
  readonly param?: Name;
  /** One sentence in plain words. */
  readonly detail: string;
}

export type RefusalReason =
  /** Another kernel: its operators are different ones. */
  | 'body-differs'
  | 'attribute-differs'
  | 'differs-in-shape'
  | 'differs-in-dtype'
  /** An output goes to the next call through another parameter than before. */
  | 'carried-through-different-parameters'
  /** A carried value is also read by somebody else. */
  | 'read-outside-the-run'
  /** Values that should be distinct are not, or one is written while another name reads it. */
  | 'aliases'
  /** The parameter is neither the same, nor distinct, nor carried in all iterations. */
  | 'mixed-binding'
  /** Fewer than two iterations. */
  | 'run-too-short';
