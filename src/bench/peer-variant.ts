/** llama.cpp with one number of threads, measured beside ours. All of them share one process and one context. */
import type { Peer } from './peer.js';
import type { Candidate, Identity, Sample, Workload } from './workload.js';

/** A run ends after this; its threads can be a hundred times slower than one where a core is busy. */
const limitMs = 20_000;

export class PeerVariant implements Candidate {
  readonly identity: Identity;
  readonly #peer: Peer;

  constructor(peer: Peer, threads: number) {
    this.#peer = peer;
    this.identity = { engine: 'llama.cpp', threads };
  }

  async time(workload: Workload): Promise<Sample> {
    await this.#peer.setThreads(this.identity.threads);
    switch (workload.kind) {
      case 'prefill':
        return this.#peer.prefill(workload.tokens);
      case 'decode': {
        const { depth, tokens } = workload;
        // Evaluation alone: the least that it takes, without the sampling loop of the library around it.
        return this.#peer.decode({ prompt: depth, tokens, path: 'evaluate', limitMs });
      }
      default:
        return workload satisfies never;
    }
  }
}
