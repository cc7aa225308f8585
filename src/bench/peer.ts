/**
 * A peer: another engine with the same weights, in a process of its own. Here is what all of them can do, and the typed
 * side of the line protocol that the programs in bench/peer speak.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { DType } from '../ir/program.js';
import type { LineProcess } from './line-process.js';
import type { PeerIdentity } from './workload.js';

/** What a peer is, without the number of threads. */
export type PeerKind = PeerIdentity extends infer One ? (One extends unknown ? Omit<One, 'threads'> : never) : never;

export interface PeerInfo {
  readonly kind: PeerKind;
  /** Of its weights. */
  readonly weights: DType;
  /** Of its KV cache. */
  readonly cache: string;
  readonly release: string;
  /** A line about what it runs on. */
  readonly system: string;
}

export interface PeerTiming {
  readonly milliseconds: number;
  /** Tokens that were evaluated in this time. */
  readonly tokens: number;
}

export interface PeerGreedy {
  readonly tokens: readonly number[];
}

/** Requests run one after another, in the order of the calls. All reject with KloopError. */
export interface Peer {
  readonly info: PeerInfo;
  /** Of the process, for watching that it is idle while others are measured. Modes of one engine share a process. */
  readonly pid: number;
  setThreads(threads: number): Promise<void>;
  /** Logits after the prompt, by token id. */
  logits(prompt: readonly number[]): Promise<Float32Array>;
  /** Greedy continuation of exactly `tokens` tokens, past any end-of-text. */
  greedy(prompt: readonly number[], tokens: number): Promise<PeerGreedy>;
  /**
   * Time of `tokens` tokens, one at a time, after a prompt of `prompt` tokens that is not counted; the least that the
   * engine takes. After `limitMs` it stops with the token it is at: two threads on busy cores can be a hundred times
   * slower than one.
   */
  decode(options: { readonly prompt: number; readonly tokens: number; readonly limitMs?: number }): Promise<PeerTiming>;
  /** Time of a prompt of `tokens` tokens (llama-bench's `pp`). */
  prefill(tokens: number): Promise<PeerTiming>;
  /** Ends the process; unfinished requests reject. */
  close(): Promise<void>;
}

const logitsSchema = z.object({ logits: z.array(z.number()) });
const greedySchema = z.object({ tokens: z.array(z.number()) });
const timingSchema = z.object({ milliseconds: z.number().positive(), tokens: z.number().int().positive() });

/** @param mode goes with every request that runs the model, where the program has several ways to do so */
export function peerBehind(line: LineProcess, info: PeerInfo, mode: { readonly mode?: string } = {}): Peer {
  return {
    info,
    pid: line.pid,
    setThreads: async (threads) => {
      await line.ask(z.object(), { op: 'threads', threads });
    },
    logits: async (prompt) =>
      Float32Array.from((await line.ask(logitsSchema, { op: 'logits', ...mode, prompt })).logits),
    greedy: (prompt, tokens) => line.ask(greedySchema, { op: 'greedy', ...mode, prompt, tokens }),
    decode: (request) => line.ask(timingSchema, { op: 'decode', ...mode, ...request }),
    prefill: (tokens) => line.ask(timingSchema, { op: 'prefill', ...mode, tokens }),
    close: () => line.close(),
  };
}

/** bench/peer of this repository: as far up from src/bench as from dist/bench. */
export function peerDirectory(): string {
  return join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'bench', 'peer');
}
