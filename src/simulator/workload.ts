/**
 * What a machine has to do for one token step, without the machine: kernel calls, each a list of parts that run one after
 * another, each part a dataflow graph of operators with their costs, run `trip` times. lower-program.ts makes it from a
 * Program, workloads/ from shapes of models that kloop only prices.
 */
import type { DType, Schedule } from '../ir/program.js';
import type { Cost } from '../ops/definition.js';

/** What is asked about a model. */
export interface Point {
  readonly schedule: Schedule;
  readonly sockets: number;
  /** Sequences decoded together, one row each. */
  readonly batch: number;
  /** Positions that a row attends to. */
  readonly context: number;
  /**
   * Tokens of one sequence that a step takes in together: a part of a prompt, of which the last token is sampled. Absent: a
   * token of each sequence of the batch. Models that have a program only.
   */
  readonly promptTokens?: number;
}

export interface Workload {
  readonly name: string;
  readonly schedule: Schedule;
  readonly sockets: number;
  readonly batch: number;
  readonly context: number;
  readonly calls: readonly WorkCall[];
  /** Token steps that these calls make: more than 1 in the `response` schedule. */
  readonly tokens: number;
  /** Bytes of weights and state that one socket has to hold. */
  readonly residentBytes: number;
}

export interface WorkCall {
  readonly kernel: WorkKernel;
  readonly layer?: number;
}

export interface WorkKernel {
  readonly name: string;
  readonly parts: readonly WorkPart[];
  /** The parts are run this many times: tokens of a response. */
  readonly repeat: number;
}

export interface WorkPart {
  readonly nodes: readonly WorkNode[];
  readonly trip: number;
  /** Bytes that may be under way ahead of what is being consumed, over the borders of operators and iterations. */
  readonly ahead: number | 'machine';
}

/** How an operator takes time: which constants of the machine apply. */
export type NodeClass = 'linear' | 'attention' | 'cache' | 'elementwise' | 'collective' | 'sampling';

export interface WorkNode {
  readonly name: string;
  readonly kind: NodeClass;
  /** Under which the reports count it. */
  readonly category: Category;
  readonly cost: Cost;
  /** Of its weights; absent where it is the machine's own. */
  readonly format?: DType;
  /** Index of the stage of the kernel (planStages): between stages, workers of one chip synchronize. */
  readonly stage: number;
  /** Rows that share what is read. */
  readonly rows: number;
  /** Independent streams of state (key/value heads times sequences). */
  readonly streams: number;
  /** Of attention: queries (rows of a sequence times the heads of a group) that share what is read of one stream. */
  readonly queries?: number;
  readonly inputs: readonly WorkInput[];
  readonly collective?: { readonly kind: 'sum' | 'gather'; readonly sockets: number; readonly bytes: number };
  /** Which weights it reads is known only when its inputs are (routed experts): nothing of it streams ahead. */
  readonly addressed?: boolean;
  /** Fused behind or before another operator: has no latency of its own. */
  readonly epilogue?: boolean;
}

export type Category = 'gemm' | 'attention' | 'elementwise' | 'all-reduce' | 'other';
export const categories: readonly Category[] = ['gemm', 'attention', 'elementwise', 'all-reduce', 'other'];

export interface WorkInput {
  /** Index of the node in its part. */
  readonly node: number;
  /** Iterations back: 0, or 1 for what the previous iteration made. */
  readonly distance: 0 | 1;
  /** `whole`: all of it is needed first. `stream`: tile by tile. */
  readonly mode: 'whole' | 'stream';
}

export const noCost: Cost = { flops: 0, weightBytes: 0, stateBytes: 0, activationBytes: 0 };

export function addCosts(costs: Iterable<Cost>): Cost {
  let sum = noCost;
  for (const cost of costs) {
    sum = {
      flops: sum.flops + cost.flops,
      weightBytes: sum.weightBytes + cost.weightBytes,
      stateBytes: sum.stateBytes + cost.stateBytes,
      activationBytes: sum.activationBytes + cost.activationBytes,
    };
  }
  return sum;
}

/** Weight and state bytes that one socket reads or writes in one run of a kernel. */
function kernelBytes(kernel: WorkKernel): number {
  let bytes = 0;
  for (const { nodes, trip } of kernel.parts) {
    for (const { cost } of nodes) bytes += trip * (cost.weightBytes + cost.stateBytes);
  }
  return bytes * kernel.repeat;
}

/** The same, of all calls, per token step. */
export function bytesPerToken(workload: Workload): number {
  return workload.calls.reduce((sum, { kernel }) => sum + kernelBytes(kernel), 0) / workload.tokens;
}

export function flopsPerToken(workload: Workload): number {
  let flops = 0;
  for (const { kernel } of workload.calls) {
    for (const { nodes, trip } of kernel.parts) {
      for (const { cost } of nodes) flops += trip * kernel.repeat * cost.flops;
    }
  }
  return flops / workload.tokens;
}
