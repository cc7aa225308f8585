/**
 * How long a sum over n sockets takes, by algorithm and message size (alpha-beta model). One-shot writes the message to
 * every peer at once, a ring moves n parts around twice, a tree goes up and down by doubling. The fastest is taken.
 */
import type { Machine } from './machine.js';

export type CollectiveAlgorithm = Machine['link']['algorithms'][number];

/** Of one socket's link: bytes per second in one direction, latency of a step and cost of a peer in seconds. */
export interface LinkRates {
  readonly bandwidth: number;
  readonly latency: number;
  readonly perPeer: number;
}

export interface CollectiveTime {
  readonly algorithm: CollectiveAlgorithm;
  /** Seconds that the link is busy. */
  readonly busy: number;
  /** Seconds of waiting on top of it. */
  readonly latency: number;
}

/** All-reduce of a message of `bytes` on every one of `sockets`. */
export function allReduceTime(
  algorithm: CollectiveAlgorithm,
  bytes: number,
  sockets: number,
  link: LinkRates,
): CollectiveTime {
  const peers = sockets - 1;
  const { bandwidth, latency, perPeer } = link;
  if (peers <= 0) return { algorithm, busy: 0, latency: 0 };
  switch (algorithm) {
    case 'one-shot':
      return { algorithm, busy: (peers * bytes) / bandwidth, latency: latency + peers * perPeer };
    case 'ring':
      return {
        algorithm,
        busy: (2 * peers * bytes) / sockets / bandwidth,
        latency: 2 * peers * latency + peers * perPeer,
      };
    case 'tree': {
      const steps = 2 * Math.ceil(Math.log2(sockets));
      return { algorithm, busy: (steps * bytes) / bandwidth, latency: steps * latency + peers * perPeer };
    }
    default:
      return algorithm satisfies never;
  }
}

/** The fastest of the algorithms that the machine has. */
export function bestAllReduce(
  algorithms: readonly CollectiveAlgorithm[],
  bytes: number,
  sockets: number,
  link: LinkRates,
): CollectiveTime {
  const times = algorithms.map((algorithm) => allReduceTime(algorithm, bytes, sockets, link));
  return times.reduce((best, time) => (time.busy + time.latency < best.busy + best.latency ? time : best));
}

/** All-gather where each socket ends with `bytes`, of which it had an equal part. */
export function allGatherTime(bytes: number, sockets: number, link: LinkRates): CollectiveTime {
  const peers = sockets - 1;
  if (peers <= 0) return { algorithm: 'one-shot', busy: 0, latency: 0 };
  const busy = (peers * bytes) / sockets / link.bandwidth;
  return { algorithm: 'one-shot', busy, latency: link.latency + peers * link.perPeer };
}
