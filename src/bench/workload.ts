/**
 * What is timed, with the names that llama-bench gives: `pp512` is a prompt of 512 tokens, `tg128` is 128 tokens made one
 * after another.
 */
import type { MemoryArea } from '../backends/backend.js';
import type { DType } from '../ir/program.js';

export type Workload =
  | { readonly kind: 'prefill'; readonly tokens: number }
  /** After a prompt of `depth` tokens, which is not timed. */
  | { readonly kind: 'decode'; readonly tokens: number; readonly depth: number };

/** The prompt before timed decoding where nobody asks for a longer one; as good as empty. */
export const shortDepth = 8;

/** The same on a GPU: 32 tokens in, 128 out is what published times per token of looped kernels were measured with. */
export const gpuDepth = 32;

/** `pp512`, `tg128`, `tg128 @ d4096`. */
export function workloadName(workload: Workload): string {
  switch (workload.kind) {
    case 'prefill':
      return `pp${workload.tokens}`;
    case 'decode':
      return `tg${workload.tokens}${workload.depth === shortDepth ? '' : ` @ d${workload.depth}`}`;
    default:
      return workload satisfies never;
  }
}

/** Positions that a token attends to on average, of `tokens` after `depth`. */
export function meanContext(depth: number, tokens: number): number {
  return Math.max(1, Math.round(depth + tokens / 2));
}

/** Tokens of a prompt that means nothing: the work is the same. The peer makes the same ones. */
export function fillerTokens(count: number, vocab: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * 7919 + 1) % vocab);
}

/** One timed run. */
export interface Sample {
  /** From the request to its result. */
  readonly milliseconds: number;
  /** Tokens of the workload that were done in this time: all, or those until a slow peer was stopped. */
  readonly tokens: number;
  /** What the kernels counted meanwhile; the peer does not count. */
  readonly counts?: Counts;
}

export interface Counts {
  readonly kernelCalls: number;
  readonly barriers: number;
  readonly bytesRead: number;
  /** Summed over the workers. */
  readonly waitNs: number;
}

/** Something that is measured beside others. Everything about it is ready before the first run. */
export interface Candidate {
  readonly identity: Identity;
  /** What it reads for every token, where that is known. */
  readonly weightsArea?: MemoryArea | undefined;
  /** Runs once; what has to come before (a prompt, a number of threads) is done first and not timed. */
  time(workload: Workload): Promise<Sample>;
}

/** Ways in which PyTorch runs a model: a kernel per operator, or steps compiled into one CUDA graph. */
export const torchModes = ['eager', 'compiled'] as const;

/** Other engines, with the same weights. PyTorch has no quantized ones, so that its name tells what it computes in. */
export type PeerIdentity =
  | { readonly engine: 'llama.cpp'; readonly threads: number }
  | {
      readonly engine: 'pytorch';
      readonly mode: (typeof torchModes)[number];
      readonly weights: DType;
      readonly threads: number;
    };

export type Identity =
  | {
      readonly engine: 'kloop';
      readonly schedule: string;
      /** Kernel calls are launched one by one, where they are one graph otherwise. */
      readonly mode?: 'single launches' | 'uncompressed';
      readonly threads: number;
    }
  | PeerIdentity;

export type Engine = Identity['engine'];

/** In the order in which they are shown. */
export const peerNames = ['llama.cpp', 'pytorch'] as const satisfies PeerIdentity['engine'][];
export type PeerName = (typeof peerNames)[number];

export const engineTitles: Readonly<Record<Engine, string>> = {
  kloop: 'kloop',
  'llama.cpp': 'llama.cpp',
  pytorch: 'PyTorch',
};

/** Which variant it is, whatever the threads: `response`, `llama.cpp`, `PyTorch eager bf16`. */
export function variantName(identity: Identity): string {
  switch (identity.engine) {
    case 'kloop':
      return identity.mode === undefined ? identity.schedule : `${identity.schedule}, ${identity.mode}`;
    case 'llama.cpp':
      return engineTitles[identity.engine];
    case 'pytorch':
      return `${engineTitles[identity.engine]} ${identity.mode} ${identity.weights}`;
    default:
      return identity satisfies never;
  }
}

/** `response with 2 threads`, `llama.cpp with 1 thread`. */
export function identityName(identity: Identity): string {
  const { threads } = identity;
  return `${variantName(identity)} with ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
}
