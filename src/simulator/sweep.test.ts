import { describe, expect, it } from 'vitest';
import { findMachine } from './machines/index.js';
import { sweep } from './sweep.js';
import { sweepPoints, type SweepPoint } from './sweep-grid.js';

const machine = findMachine('dgx-h100');
const base: SweepPoint = {
  schedule: 'looped',
  sockets: 8,
  batch: 1,
  context: 4096,
  orchestration: 'offloaded',
  values: {},
};

describe('sweepPoints', () => {
  it('is the product of the axes, the last one fastest', () => {
    const points = sweepPoints(base, ['sockets=1,2', 'batch=1,4', 'memory.bandwidth=1e12,2e12'], machine);
    expect(points).toHaveLength(8);
    expect(points[1]).toEqual({ ...base, sockets: 1, values: { 'memory.bandwidth': 2e12 } });
    expect(points[7]).toEqual({ ...base, sockets: 2, batch: 4, values: { 'memory.bandwidth': 2e12 } });
  });

  it.each(['sockets', 'sockets=', 'sockets=1,,2', 'sockets=0', 'batch=1.5', 'schedule=fast', 'colour=1', 'memory=1'])(
    'refuses %s',
    (spec) => {
      expect(() => sweepPoints(base, [spec], machine)).toThrow(/--sweep .*write for example/);
    },
  );

  it('has every point once, and refuses a name that comes twice', () => {
    expect(sweepPoints(base, ['sockets=1,2,1'], machine).map(({ sockets }) => sockets)).toEqual([1, 2]);
    expect(sweepPoints(base, ['memory.bandwidth=1e12,1000e9'], machine)).toHaveLength(1);
    expect(() => sweepPoints(base, ['sockets=1,2', 'batch=1', 'sockets=4'], machine)).toThrow(
      /--sweep sockets=4: sockets is varied already/,
    );
  });

  it('refuses a grid that is too large', () => {
    const list = Array.from({ length: 1001 }, (_, i) => i + 1).join();
    expect(() => sweepPoints(base, [`batch=${list}`, `context=${list}`], machine)).toThrow(/1002001 points/);
  });
});

it('simulates every point, and says why it cannot', async () => {
  const points = sweepPoints(base, ['sockets=1,3,8', 'memory.bandwidth=1e12,4e12'], machine);
  const seen: number[] = [];
  const task = { model: { kind: 'name', name: 'llama-2-70b' }, machine, points } as const;
  const results = await sweep(task, { workers: 1, onProgress: (done) => seen.push(done) });
  expect(seen).toEqual([1, 2, 3, 4, 5, 6]);
  // 70B fits no single GPU, and 64 heads no three.
  expect(results.map((result) => 'problem' in result)).toEqual([true, true, true, true, false, false]);
  const [slow, fast] = results.slice(4);
  if (slow === undefined || fast === undefined || 'problem' in slow || 'problem' in fast) throw new Error('simulated');
  expect(fast.tpotUs).toBeLessThan(slow.tpotUs);
});
