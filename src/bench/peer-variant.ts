/** A peer with one number of threads, measured beside ours. All of an engine share one process. */
import type { Peer } from './peer.js';
import type { Setup } from './setup.js';
import type { Candidate, PeerIdentity, Sample, Workload } from './workload.js';

/** A run ends after this; its threads can be a hundred times slower than one where a core is busy. */
const limitMs = 20_000;

class PeerVariant implements Candidate {
  readonly identity: PeerIdentity;
  readonly peer: Peer;

  constructor(peer: Peer, threads: number) {
    this.peer = peer;
    this.identity = { ...peer.info.kind, threads };
  }

  async time(workload: Workload): Promise<Sample> {
    await this.peer.setThreads(this.identity.threads);
    switch (workload.kind) {
      case 'prefill':
        return this.peer.prefill(workload.tokens);
      case 'decode': {
        const { depth, tokens } = workload;
        return this.peer.decode({ prompt: depth, tokens, limitMs });
      }
      default:
        return workload satisfies never;
    }
  }
}

/** Every peer with every number of threads; on a GPU these are not what it computes with. */
export function peerVariants(
  peers: readonly Peer[],
  { backend, threads }: Pick<Setup, 'backend' | 'threads'>,
): PeerVariant[] {
  const counts = backend.name === 'cuda' ? [1] : threads;
  return peers.flatMap((peer) => counts.map((count) => new PeerVariant(peer, count)));
}
