import { setTimeout as pause } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { IdleWatch, processorMs } from './idle.js';

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
