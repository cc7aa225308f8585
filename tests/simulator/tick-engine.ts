/**
 * The event engine once more, slow and obviously right: time goes forward one tick at a time, and at every tick everything
 * is looked at until nothing changes any more. For small graphs with small times.
 */
import type { TaskGraph, Timing } from '../../src/simulator/engine.js';

export function runTicks({ resources, tasks }: TaskGraph): Timing {
  const n = tasks.length;
  const start = new Float64Array(n).fill(NaN);
  const left = new Float64Array(n).fill(NaN);
  const done = new Float64Array(n).fill(NaN);
  const readyAt = new Float64Array(n).fill(NaN);
  let end = 0;
  for (let now = 0; done.some((time) => Number.isNaN(time) || time > now) || now === 0; now++) {
    if (now > 100_000) throw new Error('stuck');
    for (let changed = true; changed;) {
      changed = false;
      // A snapshot first: what starts in this round is not seen by others in the same round.
      const isReady = tasks.map(
        ({ after, behind }) => after.every((task) => done[task]! <= now) && behind.every((task) => left[task]! <= now),
      );
      isReady.forEach((ready, task) => {
        if (ready && Number.isNaN(readyAt[task]!)) readyAt[task] = now;
      });
      resources.forEach((order, resource) => {
        const key = (task: number): number => (order === 'ready' ? readyAt[task]! : 0);
        for (;;) {
          const busy = tasks.some((task, i) => task.resource === resource && start[i]! <= now && left[i]! > now);
          if (busy) return;
          const waiting = tasks.flatMap((task, i) =>
            task.resource === resource && isReady[i]! && Number.isNaN(start[i]!) ? [i] : [],
          );
          waiting.sort((a, b) => key(a) - key(b) || tasks[a]!.rank - tasks[b]!.rank);
          const [next] = waiting;
          if (next === undefined) return;
          start[next] = now;
          left[next] = now + tasks[next]!.occupy;
          done[next] = left[next] + tasks[next]!.latency;
          end = Math.max(end, done[next]);
          changed = true;
        }
      });
    }
  }
  return { start, left, done, end };
}
