import { setTimeout as pause } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { IdleWatch, IdleWatches, processorMs } from './idle.js';
import type { PeerInfo } from './peer.js';

const known = processorMs(process.pid) !== undefined;

test.runIf(known)('tells a process that computes from one that waits', async () => {
  const waiting = new IdleWatch(process.pid);
  expect(waiting.cores).toBeNull();
  await waiting.during(() => pause(200));
  const computing = new IdleWatch(process.pid);
  await computing.during(() => {
    // Until it has had its processor time, however busy the machine is.
    const start = process.cpuUsage();
    let used = 0;
    while (used < 100_000) used = process.cpuUsage(start).user + process.cpuUsage(start).system;
    return Promise.resolve();
  });
  expect(waiting.cores).toBeGreaterThanOrEqual(0);
  expect(computing.cores).toBeGreaterThan(waiting.cores ?? Infinity);
});

test('knows nothing of a process that is not there', async () => {
  const watch = new IdleWatch(2 ** 30);
  expect(await watch.during(() => Promise.resolve('done'))).toBe('done');
  expect(watch.cores).toBeNull();
});

test.runIf(known)('while one engine is timed, all others are watched', async () => {
  const peer = (engine: 'llama.cpp' | 'pytorch', pid: number) => ({ info: { kind: { engine } } as PeerInfo, pid });
  // The first two are this process; the last is not there.
  const watches = new IdleWatches([peer('llama.cpp', process.pid), peer('pytorch', 2 ** 30)]);
  expect(await watches.during('kloop', () => pause(20, 'done'))).toBe('done');
  expect([...watches.cores]).toEqual([
    ['kloop', null],
    ['llama.cpp', expect.any(Number)],
    ['pytorch', null],
  ]);
});
