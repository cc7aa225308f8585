/**
 * Kills the process of a test file that takes too long, and says so. Time limits of tests cannot: they wait for a turn of
 * the event loop, which never comes where a test or the native code that it calls is caught in a loop.
 */
import { Worker } from 'node:worker_threads';
import { afterAll, expect } from 'vitest';

const limitMs = 12 * 60_000;

const watch = `
  const { workerData } = require('node:worker_threads');
  setTimeout(() => {
    require('node:fs').writeSync(2, workerData.message);
    process.kill(process.pid, 'SIGKILL');
  }, workerData.limitMs);`;

const file = expect.getState().testPath ?? 'a test file';
const message = `${file}: not done after ${limitMs / 60_000} minutes, so its process is killed\n`;
const watching = new Worker(watch, { eval: true, workerData: { message, limitMs } });
watching.unref();
// The next file may run in the same process.
afterAll(() => watching.terminate());
