/** llama.cpp on the CPU as a peer: bench/peer/llama-cpp.mjs, a package of its own, installed by whoever wants to compare. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import type { DType } from '../ir/program.js';
import { UsageError } from '../util/errors.js';
import { LineProcess } from './line-process.js';
import { peerBehind, peerDirectory, type Peer, type PeerGreedy } from './peer.js';

export interface LlamaCppOptions {
  /** Path of the model. */
  readonly gguf: string;
  /** Format of most of its matrices. */
  readonly weights: DType;
  readonly threads: number;
  /** Tokens the context holds; llama.cpp rounds up to a multiple of 256. */
  readonly context: number;
  /** Format of the KV cache; llama.cpp's own default is f16. */
  readonly cache?: 'f16' | 'f32' | 'bf16' | 'q8_0';
  /** Absent: as llama.cpp decides. */
  readonly flashAttention?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Directory of the peer package, where it is not the one of this repository. */
  readonly directory?: string;
}

export interface LlamaCpp extends Peer {
  /** The greedy continuation, and per step the `top` highest logits, highest first. */
  greedyTop(prompt: readonly number[], tokens: number, top: number): Promise<PeerTop>;
}

export interface PeerTop extends PeerGreedy {
  readonly top: readonly (readonly (readonly [token: number, logit: number])[])[];
}

const infoSchema = z.object({ system: z.string(), release: z.string() });
const topSchema = z.object({
  tokens: z.array(z.number()),
  top: z.array(z.array(z.tuple([z.number(), z.number()]))),
});

/** Starts llama.cpp with a model. Throws UsageError where it is not installed, KloopError where it fails. */
export async function openLlamaCpp(options: LlamaCppOptions): Promise<LlamaCpp> {
  const { directory, gguf, weights, signal, ...settings } = options;
  const line = new LineProcess('llama.cpp', process.execPath, [requireLlamaCpp(directory)], signal);
  try {
    const { system, release } = await line.ask(infoSchema, { op: 'load', gguf: resolve(gguf), ...settings });
    const kind = { engine: 'llama.cpp' } as const;
    return {
      ...peerBehind(line, { kind, weights, cache: settings.cache ?? 'f16', release, system }),
      greedyTop: (prompt, tokens, top) => line.ask(topSchema, { op: 'greedy', prompt, tokens, top }),
    };
  } catch (error) {
    await line.close();
    throw error;
  }
}

/** Path of the program. Throws UsageError, with the command to install it, where it is not there. */
export function requireLlamaCpp(directory: string = peerDirectory()): string {
  const runner = join(directory, 'llama-cpp.mjs');
  if (existsSync(runner) && existsSync(join(directory, 'node_modules', 'node-llama-cpp'))) return runner;
  throw new UsageError('llama.cpp is not installed beside kloop', {
    // As bench/peer/.npmrc has it, which no package can hold.
    hint: `run: npm install --ignore-scripts --no-package-lock --prefix ${directory}`,
  });
}
