/**
 * From samples to figures. Ratios are taken between series of the same run: the ratio of the medians, with the smallest
 * and largest ratio of the same round, since a machine that is slow for a minute is so for both.
 */
import { median, ratioOf, spreadOf, type Spread } from '../util/statistics.js';
import { defined } from '../util/assert.js';
import type { Series } from './rounds.js';
import {
  peerNames,
  workloadName,
  type Counts,
  type Engine,
  type Identity,
  type PeerName,
  type Sample,
  type Workload,
} from './workload.js';

export interface Result {
  readonly identity: Identity;
  readonly workload: Workload;
  readonly tokensPerSecond: Spread;
  /** Microseconds. */
  readonly usPerToken: Spread;
  /** What the kernels counted, per token, over all rounds; null for the peer. */
  readonly perToken: Counts | null;
  /** Bytes per token times the median of the tokens per second. */
  readonly bytesPerSecond: number | null;
  /** Of the read bandwidth measured around the same run or round. */
  readonly bandwidthFraction: Spread | null;
  /** Bytes per second of that bandwidth, the median; null where it was not measured. */
  readonly memoryRate: number | null;
  /** Part of the workers' time that they waited for each other. */
  readonly waitFraction: number | null;
  /** How many times as fast as the schedule `operator` with as many threads. */
  readonly ratioToOperator: Spread | null;
  /** How many times as fast as each peer, with the mode and the number of threads that suit it best. */
  readonly ratioToPeer: ReadonlyMap<PeerName, Spread>;
  /** Tokens per second that the simulator gives; absent where it was not asked, or has no answer. */
  readonly predicted?: number;
  readonly samples: readonly Sample[];
}

/** Ours at its best against the peer at its best. */
export interface Duel {
  readonly workload: Workload;
  readonly ours: Identity;
  readonly peer: Identity;
  readonly ratio: Spread;
}

/** One result per series, in order. */
export function resultsOf(series: readonly Series[]): Result[] {
  return series.map((one) => {
    const same = series.filter(({ workload }) => workload === one.workload);
    const { threads } = one.identity;
    const operator = same.find(
      ({ identity }) =>
        identity.engine === 'kloop' &&
        identity.schedule === 'operator' &&
        identity.mode === undefined &&
        identity.threads === threads,
    );
    return resultOf(one, one.identity.engine === 'kloop' ? operator : undefined, bestPeers(same));
  });
}

function resultOf(series: Series, operator: Series | undefined, peers: ReadonlyMap<PeerName, Series>): Result {
  const { identity, workload, samples, memoryRates } = series;
  const rates = ratesOf(series);
  const tokensPerSecond = spreadOf(rates);
  const perToken = countsPerToken(samples);
  const elapsedNs = samples.reduce((sum, { milliseconds }) => sum + milliseconds, 0) * 1e6;
  const waitNs = samples.reduce((sum, { counts }) => sum + (counts?.waitNs ?? 0), 0);
  const ratioTo = (other: Series | undefined): Spread | null =>
    other === undefined ? null : ratioOf(rates, ratesOf(other));
  return {
    identity,
    workload,
    tokensPerSecond,
    usPerToken: spreadOf(rates.map((rate) => 1e6 / rate)),
    perToken,
    bytesPerSecond: perToken === null ? null : perToken.bytesRead * tokensPerSecond.median,
    bandwidthFraction:
      perToken === null || memoryRates.length === 0
        ? null
        : spreadOf(rates.map((rate, round) => (rate * perToken.bytesRead) / defined(memoryRates[round], 'bandwidth'))),
    memoryRate: memoryRates.length === 0 ? null : median(memoryRates),
    waitFraction: perToken === null ? null : waitNs / (elapsedNs * identity.threads),
    ratioToOperator: ratioTo(operator),
    ratioToPeer: new Map([...peers].map(([name, peer]) => [name, ratioOf(rates, ratesOf(peer))])),
    samples,
  };
}

/** Tokens per second, by round. */
function ratesOf({ samples }: Series): number[] {
  return samples.map(({ milliseconds, tokens }) => (tokens / milliseconds) * 1000);
}

/** Null unless all samples counted. */
function countsPerToken(samples: readonly Sample[]): Counts | null {
  const counts = samples.flatMap((sample) => sample.counts ?? []);
  if (counts.length < samples.length) return null;
  const tokens = samples.reduce((sum, sample) => sum + sample.tokens, 0);
  const mean = (pick: (counts: Counts) => number): number => counts.reduce((sum, one) => sum + pick(one), 0) / tokens;
  return {
    kernelCalls: mean(({ kernelCalls }) => kernelCalls),
    barriers: mean(({ barriers }) => barriers),
    bytesRead: mean(({ bytesRead }) => bytesRead),
    waitNs: mean(({ waitNs }) => waitNs),
  };
}

/** Of every peer the series with the highest median. */
function bestPeers(series: readonly Series[]): Map<PeerName, Series> {
  const best = new Map<PeerName, Series>();
  for (const name of peerNames) {
    const fast = fastest(
      series.filter(({ identity }) => identity.engine === name),
      (one) => spreadOf(ratesOf(one)).median,
    );
    if (fast !== undefined) best.set(name, fast);
  }
  return best;
}

/** The best of both sides, for every workload and every peer. */
export function duelsOf(results: readonly Result[]): Duel[] {
  const names = new Set(results.map(({ workload }) => workloadName(workload)));
  return [...names].flatMap((name) => {
    const same = results.filter(({ workload }) => workloadName(workload) === name);
    const best = (engine: Engine): Result | undefined =>
      fastest(
        same.filter(({ identity }) => identity.engine === engine),
        ({ tokensPerSecond }) => tokensPerSecond.median,
      );
    const ours = best('kloop');
    return peerNames.flatMap((engine) => {
      const [peer, ratio] = [best(engine), ours?.ratioToPeer.get(engine)];
      if (ours === undefined || peer === undefined || ratio === undefined) return [];
      return [{ workload: ours.workload, ours: ours.identity, peer: peer.identity, ratio }];
    });
  });
}

/** Undefined of none. */
export function fastest<T>(candidates: readonly T[], rate: (candidate: T) => number): T | undefined {
  return candidates.reduce<T | undefined>(
    (best, candidate) => (best === undefined || rate(candidate) > rate(best) ? candidate : best),
    undefined,
  );
}
