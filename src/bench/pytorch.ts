/**
 * PyTorch as a peer: bench/peer/pytorch.py, which runs the directory of a checkpoint through transformers, eager and
 * compiled. Needs a `python3` that has both; kloop itself never does.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { z } from 'zod';
import { bytesOf } from '../ir/tensor.js';
import type { DType } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { parameterCount } from '../models/tensors.js';
import { UsageError } from '../util/errors.js';
import { LineProcess } from './line-process.js';
import { peerBehind, peerDirectory, type Peer } from './peer.js';
import { torchModes } from './workload.js';

export interface PyTorchOptions {
  /** Directory with config.json and safetensors. */
  readonly checkpoint: string;
  /** What it computes in: the format of the weights, or one that holds them exactly. */
  readonly weights: DType;
  readonly device: 'cpu' | 'cuda';
  readonly threads: number;
  /** Tokens that the cache of the compiled mode holds. */
  readonly context: number;
  readonly signal?: AbortSignal | undefined;
  /** Hears why a mode is left out. */
  readonly onNotice: (line: string) => void;
}

const infoSchema = z.object({
  python: z.string(),
  torch: z.string(),
  transformers: z.string(),
  device: z.string(),
  modes: z.array(z.enum(torchModes)).min(1),
  missing: z.partialRecord(z.enum(torchModes), z.string()),
});

/** Loads a checkpoint; one peer per mode, all in one process. Throws KloopError where PyTorch fails. */
export async function openPyTorch({ onNotice, signal, ...options }: PyTorchOptions): Promise<Peer[]> {
  const line = new LineProcess('PyTorch', 'python3', [program()], signal);
  try {
    const info = await line.ask(infoSchema, { op: 'load', ...options });
    for (const [mode, reason] of Object.entries(info.missing)) onNotice(`PyTorch ${mode} is left out: ${reason}`);
    const { weights } = options;
    const system = `transformers ${info.transformers}, Python ${info.python}, ${info.device}`;
    return info.modes.map((mode) => {
      const kind = { engine: 'pytorch', mode, weights } as const;
      return peerBehind(line, { kind, weights, cache: weights, release: info.torch, system }, { mode });
    });
  } catch (error) {
    await line.close();
    throw error;
  }
}

/** What its process has on a device beside tensors: the context, libraries, compiled code, graphs. An estimate, none too small. */
const besideTensors = 2 ** 30;

/**
 * Memory of a device that it takes beside ours: one set of weights for both modes, the cache of the compiled one, and that of
 * the eager one, which is copied when it grows. @param context positions
 */
export function pyTorchBytes(config: ModelConfig, weights: DType, context: number): number {
  const { layers, kvHeads, headDim } = config;
  const cache = bytesOf(weights, 2 * layers * kvHeads * headDim * context);
  return bytesOf(weights, parameterCount(config)) + 3 * cache + besideTensors;
}

/** Throws UsageError where there is no python3 with torch and transformers. */
export function requirePyTorch(): void {
  const { error, status, stderr } = spawnSync('python3', [program(), '--check'], { encoding: 'utf8' });
  if (status === 0) return;
  const reason = error === undefined ? (stderr.trim().split('\n').at(-1) ?? '') : 'python3 is not found';
  throw new UsageError(`PyTorch cannot be asked: ${reason}`, { hint: 'run: pip install torch transformers' });
}

function program(): string {
  return join(peerDirectory(), 'pytorch.py');
}
