import { describe, expect, it } from 'vitest';
import { duelsOf, resultsOf } from './results.js';
import type { Series } from './rounds.js';
import type { Counts, Identity, Workload } from './workload.js';

const decode: Workload = { kind: 'decode', tokens: 10, depth: 8 };
const prefill: Workload = { kind: 'prefill', tokens: 100 };
const ours = (schedule: string, threads = 2): Identity => ({ engine: 'kloop', schedule, threads });
const theirs = (threads: number): Identity => ({ engine: 'llama.cpp', threads });

const torch = (mode: 'eager' | 'compiled'): Identity => ({ engine: 'pytorch', mode, weights: 'bf16', threads: 2 });

/** Runs that took this long, each for all tokens of the workload. */
function series(
  identity: Identity,
  milliseconds: readonly number[],
  workload = decode,
  counts?: Counts,
  memoryRates: readonly number[] = [],
): Series {
  const { tokens } = workload;
  const counted = counts === undefined ? {} : { counts };
  const samples = milliseconds.map((ms) => ({ milliseconds: ms, tokens, ...counted }));
  return { identity, workload, samples, memoryRates };
}

describe('resultsOf', () => {
  it('gives medians over the rounds', () => {
    // 10 tokens in 5, 10 and 20 ms.
    const [result] = resultsOf([series(ours('looped'), [5, 20, 10])]);
    expect(result?.tokensPerSecond).toEqual({ median: 1000, min: 500, max: 2000 });
    expect(result).toMatchObject({
      usPerToken: { median: 1000, min: 500, max: 2000 },
      perToken: null,
      bytesPerSecond: null,
      bandwidthFraction: null,
    });
  });

  it('counts per token, and knows the bandwidth around its runs', () => {
    const counts = { kernelCalls: 40, barriers: 270, bytesRead: 1e6, waitNs: 2e6 };
    // 1000 and 500 tokens/s of 100 kB: 100 and 50 MB/s, of 200 and 400 MB/s around the runs.
    const [result] = resultsOf([series(ours('looped'), [10, 20], decode, counts, [200e6, 400e6])]);
    expect(result?.perToken).toEqual({ kernelCalls: 4, barriers: 27, bytesRead: 1e5, waitNs: 2e5 });
    expect(result?.bytesPerSecond).toBe(75e6);
    expect(result?.bandwidthFraction).toEqual({ median: 0.3125, min: 0.125, max: 0.5 });
    expect(result?.memoryRate).toBe(300e6);
    // 4 ms of 30 ms by two threads.
    expect(result?.waitFraction).toBeCloseTo(4 / 60, 12);
  });

  it('counts a slow peer by the tokens that it made', () => {
    const short: Series = {
      identity: theirs(2),
      workload: decode,
      samples: [{ milliseconds: 20_000, tokens: 2 }],
      memoryRates: [],
    };
    expect(resultsOf([short])[0]?.tokensPerSecond.median).toBe(0.1);
  });

  it('compares with the operator schedule of as many threads, in the same test', () => {
    const results = resultsOf([
      series(ours('operator', 1), [40, 40]),
      series(ours('operator'), [20, 60]),
      series(ours('looped'), [10, 10]),
      series(ours('looped'), [1, 1], prefill),
    ]);
    expect(results[1]?.ratioToOperator).toEqual({ median: 1, min: 1, max: 1 });
    // Medians: 1000 against (500 + 166.7) / 2; rounds: 2 and 6.
    expect(results[2]?.ratioToOperator?.median).toBeCloseTo(3, 12);
    expect([results[2]?.ratioToOperator?.min, results[2]?.ratioToOperator?.max]).toEqual(
      [2, 6].map((x) => expect.closeTo(x, 12) as number),
    );
    expect(results[3]?.ratioToOperator).toBeNull();
  });

  it('compares with the best number of threads of the peer', () => {
    const all = [series(ours('response'), [5, 5]), series(theirs(1), [10, 20]), series(theirs(2), [100, 100])];
    const [response, one, two] = resultsOf(all);
    expect(response?.ratioToPeer).toEqual(
      new Map([['llama.cpp', { median: expect.closeTo(2000 / 750, 12) as number, min: 2, max: 4 }]]),
    );
    expect(one?.ratioToPeer.get('llama.cpp')).toEqual({ median: 1, min: 1, max: 1 });
    expect(one?.ratioToOperator).toBeNull();
    expect(two?.ratioToPeer.get('llama.cpp')?.median).toBeCloseTo(100 / 750, 12);
  });

  it('compares with the best mode of PyTorch, apart from other peers', () => {
    const all = [series(ours('response'), [5]), series(theirs(1), [20]), series(torch('eager'), [50])];
    const [response, llama] = resultsOf([...all, series(torch('compiled'), [10])]);
    const ratios = (result: typeof response): unknown =>
      [...(result?.ratioToPeer ?? [])].map(([name, { median }]) => [name, median]);
    expect(ratios(response)).toEqual([
      ['llama.cpp', 4],
      ['pytorch', 2],
    ]);
    expect(ratios(llama)).toEqual([
      ['llama.cpp', 1],
      ['pytorch', 0.5],
    ]);
  });
});

describe('duelsOf', () => {
  it('sets the best of ours against the best of theirs, for every test', () => {
    const results = resultsOf([
      series(ours('operator', 1), [20]),
      series(ours('response', 1), [5]),
      series(ours('response', 2), [8]),
      series(theirs(1), [10]),
      series(theirs(2), [30]),
      series(ours('operator', 1), [20], prefill),
      series(theirs(1), [40], prefill),
      series(theirs(2), [10], prefill),
    ]);
    const duels = duelsOf(results);
    expect(duels.map((duel) => [duel.ours, duel.peer, duel.ratio.median])).toEqual([
      [ours('response', 1), theirs(1), 2],
      [ours('operator', 1), theirs(2), 0.5],
    ]);
  });

  it('has one for every peer', () => {
    const results = resultsOf([series(ours('looped'), [5]), series(torch('eager'), [50]), series(theirs(1), [20])]);
    expect(duelsOf(results).map((duel) => [duel.peer, duel.ratio.median])).toEqual([
      [theirs(1), 4],
      [torch('eager'), 10],
    ]);
  });

  it('needs both sides', () => {
    expect(duelsOf(resultsOf([series(ours('looped'), [1])]))).toEqual([]);
  });
});
