/** The peers of a benchmark: which can be had, and how each gets the weights. */
import type { Backend } from '../backends/backend.js';
import type { Checkpoint } from '../checkpoint/checkpoint.js';
import { ggufArchitecture, ggufContext } from '../checkpoint/gguf/metadata.js';
import { isQuantized } from '../ir/formats.js';
import type { DType } from '../ir/program.js';
import { UsageError } from '../util/errors.js';
import { openLlamaCpp, requireLlamaCpp } from './llama-cpp.js';
import type { Peer } from './peer.js';
import { openPyTorch, pyTorchBytes, requirePyTorch } from './pytorch.js';
import { ggufOf, type SubjectOptions } from './subject.js';
import type { PeerName } from './workload.js';

/** Throws UsageError where one is not installed, or does not run where the backend does. */
export function requirePeers(names: readonly PeerName[], backend: Backend): void {
  if (names.includes('llama.cpp')) {
    requireLlamaCpp();
    if (backend.name === 'cuda') {
      throw new UsageError('the llama.cpp beside kloop runs on processors only', {
        hint: 'compare with --backend cpu',
      });
    }
  }
  if (names.includes('pytorch')) requirePyTorch();
}

/** Memory of the device that peers take beside ours. @param weights what ours has. @param context positions */
export function peerBytes(names: readonly PeerName[], checkpoint: Checkpoint, weights: DType, context: number): number {
  if (!names.includes('pytorch')) return 0;
  return pyTorchBytes(checkpoint.config, unquantized(weights, checkpoint), context);
}

export interface PeersOptions extends SubjectOptions {
  readonly backend: Backend;
  /** What ours has. */
  readonly weights: DType;
  /** Tokens of the context. */
  readonly context: number;
}

/** Starts one after another; `onPeer` hears of each at once, so that it can be closed whatever comes. */
export async function openPeers(
  names: readonly PeerName[],
  checkpoint: Checkpoint,
  options: PeersOptions,
  onPeer: (peer: Peer) => void,
): Promise<void> {
  if (names.includes('pytorch')) requireDirectory(checkpoint);
  const { backend, weights, context, onNotice, signal } = options;
  if (names.includes('llama.cpp')) {
    requireWindow(checkpoint, context);
    const gguf = await ggufOf(checkpoint, weights, options);
    onPeer(await openLlamaCpp({ gguf, weights, threads: 1, context, signal }));
  }
  if (names.includes('pytorch')) {
    const peers = await openPyTorch({
      ...{ checkpoint: checkpoint.path, weights: unquantized(weights, checkpoint), threads: 1, context, onNotice },
      device: backend.name === 'cuda' ? 'cuda' : 'cpu',
      signal,
    });
    peers.forEach(onPeer);
  }
}

/** Beyond the window of the model, llama.cpp would compute something else, and read more for it. */
function requireWindow({ config }: Checkpoint, context: number): void {
  const most = ggufContext(config);
  if (context <= most) return;
  throw new UsageError(
    `llama.cpp has no sliding window for ${ggufArchitecture(config)} models: beside it, ${config.name} has ${most} positions, not ${context}`,
    { hint: 'measure shorter --contexts and --depth, or leave out --peer llama.cpp' },
  );
}

/** PyTorch loads what a checkpoint has, or wider. */
function unquantized(weights: DType, { config }: Checkpoint): DType {
  return isQuantized(weights) ? config.dtype : weights;
}

function requireDirectory({ path, formatOf }: Checkpoint): void {
  if (formatOf === undefined) return;
  throw new UsageError(`PyTorch does not run ${path}, a GGUF file`, {
    hint: 'give the directory with config.json and safetensors that it was made from, or leave out --peer pytorch',
  });
}
