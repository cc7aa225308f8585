/** A thread of a sweep: gets its points once, and sends results in batches as they come. */
import { parentPort, workerData } from 'node:worker_threads';
import { simulatePoints, type SweepResult, type SweepTask } from './sweep-points.js';

const batch = 32;

let pending: SweepResult[] = [];
simulatePoints(workerData as SweepTask, (result) => {
  pending.push(result);
  if (pending.length < batch) return;
  parentPort?.postMessage(pending);
  pending = [];
});
parentPort?.postMessage(pending);
