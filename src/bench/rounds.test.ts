import { describe, expect, it } from 'vitest';
import type { BandwidthMeter, MemoryArea } from '../backends/backend.js';
import { AbortedError } from '../util/errors.js';
import { measureRounds } from './rounds.js';
import type { Candidate, Workload } from './workload.js';

const decode: Workload = { kind: 'decode', tokens: 4, depth: 8 };
const prefill: Workload = { kind: 'prefill', tokens: 6 };

/** Candidates that write down when they ran; each run takes one more millisecond, and at least as many as are given. */
function recorded(schedules: readonly string[], least = 1000): { candidates: Candidate[]; log: string[] } {
  const log: string[] = [];
  const candidates = schedules.map((schedule): Candidate => ({
    identity: { engine: 'kloop', schedule, threads: 1 },
    time: ({ kind, tokens }) => {
      log.push(`${schedule} ${kind}`);
      return Promise.resolve({ milliseconds: least + log.length, tokens });
    },
  }));
  return { candidates, log };
}

describe('measureRounds', () => {
  /** Gives 1, 2, ... bytes per second of its buffer of 400 bytes, and 1001, 1002, ... of another area. */
  function meterIn(log: string[]): { meter: Pick<BandwidthMeter, 'bytes' | 'measure'> } {
    let measured = 0;
    // The median of five.
    const measure = (area?: MemoryArea): number => {
      const what = area === undefined ? 'bandwidth' : `bandwidth of ${area.address}`;
      if (log.at(-1) !== what) measured = log.push(what);
      return area === undefined ? measured : 1000 + measured;
    };
    return { meter: { bytes: 400, measure } };
  }

  it('runs all in turn, with the bandwidth between the rounds', async () => {
    const { candidates, log } = recorded(['a', 'b'], 100);
    const rounds = await measureRounds(candidates, [decode, prefill], { rounds: 2, ...meterIn(log) });
    const round = ['a decode', 'b decode', 'a prefill', 'b prefill'];
    const warmUp = round.flatMap((run) => [run, run, run, run]);
    expect(log).toEqual([...warmUp, 'bandwidth', ...round, 'bandwidth', ...round, 'bandwidth']);
    expect(rounds.bandwidth).toEqual([17, 22, 27]);
    expect(rounds.series.map(({ identity, workload }) => [identity, workload])).toEqual([
      [candidates[0]?.identity, decode],
      [candidates[1]?.identity, decode],
      [candidates[0]?.identity, prefill],
      [candidates[1]?.identity, prefill],
    ]);
    for (const { memoryRates } of rounds.series) expect(memoryRates).toEqual([19.5, 24.5]);
  });

  it('measures the bandwidth around long runs', async () => {
    const { candidates, log } = recorded(['a', 'b']);
    const { series, bandwidth } = await measureRounds(candidates, [decode], { rounds: 2, ...meterIn(log) });
    const around = (run: string) => [`${run} decode`, 'bandwidth'];
    const round = [...around('a'), ...around('b')];
    expect(log).toEqual(['a decode', 'b decode', 'bandwidth', ...round, ...round]);
    expect(bandwidth).toEqual([3, 5, 7, 9, 11]);
    expect(series.map(({ memoryRates }) => memoryRates)).toEqual([
      [4, 8],
      [6, 10],
    ]);
  });

  it('measures the bandwidth of large weights themselves around long runs', async () => {
    const { candidates, log } = recorded(['small', 'large']);
    const areas = [
      { address: 1n, bytes: 99 },
      { address: 2n, bytes: 100 },
    ];
    const readers = candidates.map((candidate, i) => ({ ...candidate, weightsArea: areas[i] }));
    const measured = await measureRounds(readers, [decode], { rounds: 1, ...meterIn(log) });
    const small = ['bandwidth', 'small decode', 'bandwidth'];
    const large = ['bandwidth of 2', 'large decode', 'bandwidth of 2'];
    expect(log).toEqual(['small decode', 'large decode', ...small, ...large, 'bandwidth']);
    expect(measured.bandwidth).toEqual([3, 5, 9]);
    expect(measured.weightsBandwidth).toEqual([1006, 1008]);
    expect(measured.series.map(({ memoryRates }) => memoryRates)).toEqual([[4], [1007]]);
  });

  it('leaves the warm-up out, and watches the other runs', async () => {
    const { candidates } = recorded(['a']);
    const watched: string[] = [];
    const { series, bandwidth } = await measureRounds(candidates, [decode], {
      rounds: 3,
      watch: (identity, run) => {
        watched.push(identity.engine);
        return run();
      },
    });
    expect(series[0]?.samples.map(({ milliseconds }) => milliseconds)).toEqual([1002, 1003, 1004]);
    expect(watched).toHaveLength(3);
    expect(bandwidth).toEqual([]);
  });

  it('warms up short runs several times', async () => {
    const { candidates, log } = recorded(['a', 'b'], 100);
    const { series } = await measureRounds(candidates, [decode], { rounds: 1 });
    expect(log).toEqual(['a', 'a', 'a', 'a', 'b', 'b', 'b', 'b', 'a', 'b'].map((name) => `${name} decode`));
    expect(series.map(({ samples }) => samples.length)).toEqual([1, 1]);
    const short = recorded(['a'], 0);
    await measureRounds(short.candidates, [decode], { rounds: 2 });
    expect(short.log).toHaveLength(8 + 2);
  });

  it('tells its progress to the end', async () => {
    const { candidates } = recorded(['a', 'b']);
    const seen: string[] = [];
    const onProgress = (done: number, total: number): void => void seen.push(`${done}/${total}`);
    await measureRounds(candidates, [decode], { rounds: 1, onProgress });
    expect(seen).toEqual(['0/4', '1/4', '2/4', '3/4', '4/4']);
  });

  it('stops where it is asked to', async () => {
    const { candidates, log } = recorded(['a', 'b']);
    const controller = new AbortController();
    const onProgress = (done: number): void => {
      if (done === 3) controller.abort();
    };
    const running = measureRounds(candidates, [decode], { rounds: 5, onProgress, signal: controller.signal });
    await expect(running).rejects.toThrow(AbortedError);
    expect(log).toHaveLength(3);
  });
});
