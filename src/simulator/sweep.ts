/** Runs a sweep on the cores: points that share a program go to one worker, so that each program is compiled once. */
import { Worker } from 'node:worker_threads';
import { defined } from '../util/assert.js';
import type { SweepPoint } from './sweep-grid.js';
import { simulatePoints, type SweepResult, type SweepTask } from './sweep-points.js';

export interface SweepOptions {
  /** 0 and 1 simulate in this thread. */
  readonly workers: number;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Below this many points, starting workers costs more than it gains. */
const fewPoints = 64;

/** Results in the order of the points. */
export async function sweep(task: SweepTask, { workers, onProgress }: SweepOptions): Promise<SweepResult[]> {
  const total = task.points.length;
  let done = 0;
  const report = (count: number): void => {
    done += count;
    onProgress?.(done, total);
  };
  if (workers <= 1 || total < fewPoints) {
    const results: SweepResult[] = [];
    simulatePoints(task, (result) => {
      results.push(result);
      report(1);
    });
    return results;
  }
  const results: SweepResult[] = [];
  await Promise.all(
    shares(task.points, workers).map(async (indices) => {
      const points = indices.map((index) => defined(task.points[index], 'point'));
      const own = await runWorker({ ...task, points }, report);
      own.forEach((result, i) => (results[defined(indices[i], 'index')] = result));
    }),
  );
  return results;
}

/** Indices for each worker: sorted by program, then cut into equal pieces. */
function shares(points: readonly SweepPoint[], workers: number): number[][] {
  const program = (index: number): string => {
    const { schedule, sockets } = defined(points[index], 'point');
    return `${schedule}.${sockets}`;
  };
  const order = [...points.keys()].sort((a, b) => (program(a) < program(b) ? -1 : program(a) > program(b) ? 1 : a - b));
  const each = Math.ceil(order.length / workers);
  return Array.from({ length: workers }, (_, w) => order.slice(w * each, (w + 1) * each)).filter(
    (own) => own.length > 0,
  );
}

function runWorker(task: SweepTask, report: (count: number) => void): Promise<SweepResult[]> {
  return new Promise((resolve, reject) => {
    const results: SweepResult[] = [];
    const worker = new Worker(new URL('./sweep-worker.js', import.meta.url), { workerData: task });
    worker.on('message', (batch: SweepResult[]) => {
      results.push(...batch);
      report(batch.length);
    });
    worker.on('error', reject);
    worker.on('exit', (code) => {
      if (code === 0 && results.length === task.points.length) resolve(results);
      else
        reject(
          new Error(`a sweep worker ended with code ${code} after ${results.length} of ${task.points.length} points`),
        );
    });
  });
}
