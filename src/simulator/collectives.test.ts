import { describe, expect, it } from 'vitest';
import { allGatherTime, allReduceTime, bestAllReduce } from './collectives.js';

const link = { bandwidth: 100, latency: 2, perPeer: 0.5 };

describe('allReduceTime', () => {
  it.each([
    // One write to each of 7 peers.
    ['one-shot' as const, 7 * 8, 2 + 7 * 0.5],
    // 2 x 7 steps of an eighth.
    ['ring' as const, 14, 14 * 2 + 7 * 0.5],
    // 3 levels up, 3 down.
    ['tree' as const, 6 * 8, 6 * 2 + 7 * 0.5],
  ])('%s', (algorithm, busyHundredths, latency) => {
    const time = allReduceTime(algorithm, 800, 8, link);
    expect(time.busy).toBeCloseTo((busyHundredths * 100) / 100, 9);
    expect(time.latency).toBeCloseTo(latency, 9);
  });

  it('costs nothing on one socket', () => {
    expect(allReduceTime('ring', 800, 1, link)).toMatchObject({ busy: 0, latency: 0 });
    expect(allGatherTime(800, 1, link)).toMatchObject({ busy: 0, latency: 0 });
  });
});

it('small messages go in one shot, large ones around the ring', () => {
  const algorithms = ['one-shot', 'ring', 'tree'] as const;
  expect(bestAllReduce(algorithms, 1, 8, link).algorithm).toBe('one-shot');
  expect(bestAllReduce(algorithms, 1e6, 8, link).algorithm).toBe('ring');
});

it('a gather brings the parts of the others', () => {
  expect(allGatherTime(800, 8, link)).toMatchObject({ busy: 7, latency: 2 + 3.5 });
});
