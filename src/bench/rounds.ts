/**
 * The order of measuring: in every round every candidate once, in turn (A B C A B C ...), so that whatever the machine
 * does besides hits all alike. The bandwidth is measured before the first round and after each, and around every long run,
 * since it can change within seconds; there over the weights themselves, where that is possible.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { BandwidthMeter, MemoryArea } from '../backends/backend.js';
import { AbortedError } from '../util/errors.js';
import { median } from '../util/statistics.js';
import type { Candidate, Identity, Sample, Workload } from './workload.js';

export interface RoundsOptions {
  readonly rounds: number;
  /** Absent where the bandwidth cannot be measured. */
  readonly meter?: Pick<BandwidthMeter, 'bytes' | 'measure'>;
  /** Around every run, warm-up excluded. */
  readonly watch?: <T>(identity: Identity, run: () => Promise<T>) => Promise<T>;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** The samples of one candidate and one workload, one per round. */
export interface Series {
  readonly identity: Identity;
  readonly workload: Workload;
  readonly samples: readonly Sample[];
  /** Bytes per second that memory gave around each of them, or around its round; empty where not measured. */
  readonly memoryRates: readonly number[];
}

export interface Measurements {
  /** By workload, then by candidate, in the order given. */
  readonly series: readonly Series[];
  /** Bytes per second of the meter's buffer, every measurement of it; empty where not measured. */
  readonly bandwidth: readonly number[];
  /** The same of weights that no cache holds. */
  readonly weightsBandwidth: readonly number[];
}

/** Threads that waited actively are asleep after this, on either side. */
export const settleMs = 20;
/** Runs of which the warm-up lasts this long have the bandwidth measured around them; after shorter ones, caches would be empty. */
const longRunMs = 250;
/** The median of these is one measurement of the bandwidth. */
const bandwidthPasses = 5;

/** Before anything counts, every candidate runs this long or this often: code gets its final form, and caches fill. */
const warmUpMs = 400;
const warmUpRuns = 8;

/** Warms everything up, then runs `rounds` rounds. Throws AbortedError after `signal`. */
export async function measureRounds(
  candidates: readonly Candidate[],
  workloads: readonly Workload[],
  options: RoundsOptions,
): Promise<Measurements> {
  const { rounds, meter, onProgress, signal } = options;
  const watch: NonNullable<RoundsOptions['watch']> = options.watch ?? ((_, run) => run());
  const pairs = workloads.flatMap((workload) => candidates.map((candidate) => ({ workload, candidate })));
  const series = pairs.map(({ workload, candidate: { identity } }) => ({
    ...{ identity, workload },
    samples: [] as Sample[],
    memoryRates: [] as number[],
  }));
  const bandwidth: number[] = [];
  const weightsBandwidth: number[] = [];
  const total = pairs.length * (rounds + 1);
  let done = 0;
  /** By area, undefined for the buffer: since something has run. */
  const latest = new Map<MemoryArea | undefined, number>();
  const memoryRate = (by: Pick<BandwidthMeter, 'measure'>, area: MemoryArea | undefined): number => {
    const known = latest.get(area);
    if (known !== undefined) return known;
    const rate = median(Array.from({ length: bandwidthPasses }, () => by.measure(area)));
    latest.set(area, rate);
    (area === undefined ? bandwidth : weightsBandwidth).push(rate);
    return rate;
  };
  const runOnce = async (run: () => Promise<Sample>): Promise<Sample> => {
    stopIf(signal);
    await pause(settleMs);
    latest.clear();
    const sample = await run();
    stopIf(signal);
    onProgress?.(++done, total);
    return sample;
  };
  onProgress?.(done, total);
  const long: boolean[] = [];
  for (const { candidate, workload } of pairs) {
    const { milliseconds } = await runOnce(() => warmUp(candidate, workload, signal));
    long.push(milliseconds >= longRunMs);
  }
  /** What memory, or this area of it, gave on average before and after `run`; undefined where it is not measured. */
  const around = async (run: () => Promise<void>, area?: MemoryArea): Promise<number | undefined> => {
    if (meter === undefined) {
      await run();
      return undefined;
    }
    const before = memoryRate(meter, area);
    await run();
    return (before + memoryRate(meter, area)) / 2;
  };
  for (let round = 0; round < rounds; round++) {
    const rates: (number | undefined)[] = [];
    const whole = await around(async () => {
      for (const [i, { candidate, workload }] of pairs.entries()) {
        const run = async (): Promise<void> => {
          series[i]!.samples.push(await runOnce(() => watch(candidate.identity, () => candidate.time(workload))));
        };
        if (long[i]!) rates[i] = await around(run, meter && areaToRead(candidate, meter));
        else await run();
      }
    });
    if (whole !== undefined) series.forEach(({ memoryRates }, i) => memoryRates.push(rates[i] ?? whole));
  }
  return { series, bandwidth, weightsBandwidth };
}

/** The weights, where no cache holds them: the meter's buffer is four times the last-level caches. */
export function areaToRead(
  { weightsArea }: Pick<Candidate, 'weightsArea'>,
  meter: Pick<BandwidthMeter, 'bytes'>,
): MemoryArea | undefined {
  return weightsArea !== undefined && weightsArea.bytes >= meter.bytes / 4 ? weightsArea : undefined;
}

async function warmUp(candidate: Candidate, workload: Workload, signal: AbortSignal | undefined): Promise<Sample> {
  let sample = await candidate.time(workload);
  let spent = sample.milliseconds;
  for (let runs = 1; runs < warmUpRuns && spent < warmUpMs; runs++) {
    stopIf(signal);
    sample = await candidate.time(workload);
    spent += sample.milliseconds;
  }
  return sample;
}

function stopIf(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortedError('the benchmark was stopped');
}
