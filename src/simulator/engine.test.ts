import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { runTicks } from '../../tests/simulator/tick-engine.js';
import { runTasks, type Task, type TaskGraph } from './engine.js';

/** A task on resource 0 unless said otherwise. */
function task(occupy: number, latency: number, rank: number, rest: Partial<Task> = {}): Task {
  return { resource: 0, rank, occupy, latency, after: [], behind: [], ...rest };
}

describe('closed forms', () => {
  it('one resource: a stream of n pieces takes n pieces and one latency', () => {
    const tasks = Array.from({ length: 7 }, (_, i) => task(10, 25, i));
    const { start, done, end } = runTasks({ resources: ['ready'], tasks });
    expect([...start]).toEqual([0, 10, 20, 30, 40, 50, 60]);
    expect([...done]).toEqual([35, 45, 55, 65, 75, 85, 95]);
    expect(end).toBe(7 * 10 + 25);
  });

  it('one after another: not before the first is done, and then at once', () => {
    const tasks = [task(10, 5, 0), task(3, 0, 1, { resource: 1, after: [0] })];
    expect(runTasks({ resources: ['ready', 'ready'], tasks }).start[1]).toBe(15);
    const behind = [task(10, 5, 0), task(3, 0, 1, { resource: 1, behind: [0] })];
    expect(runTasks({ resources: ['ready', 'ready'], tasks: behind }).start[1]).toBe(10);
  });

  it.each([1, 2, 3, 8])('two stages with a buffer of %i tiles', (buffer) => {
    const [n, fast, slow] = [8, 3, 10];
    // Maker tile t waits until consumer tile t - buffer has been taken up and left.
    const tasks = Array.from({ length: n }, (_, t) => [
      task(fast, 0, 2 * t, { behind: t < buffer ? [] : [2 * (t - buffer) + 1] }),
      task(slow, 0, 2 * t + 1, { resource: 1, after: [2 * t] }),
    ]).flat();
    const { end } = runTasks({ resources: ['rank', 'rank'], tasks });
    // With one place the stages take turns; with more, the slow one never waits after the first tile.
    expect(end).toBe(buffer === 1 ? n * (fast + slow) : fast + n * slow);
  });

  it('serves by rank, or by when it became ready', () => {
    const tasks = [task(10, 0, 0), task(5, 0, 2), task(5, 0, 1, { after: [3] }), task(7, 0, 3, { resource: 1 })];
    const byRank = runTasks({ resources: ['rank', 'rank'], tasks });
    expect([byRank.start[1], byRank.start[2]]).toEqual([15, 10]);
    const byReady = runTasks({ resources: ['ready', 'ready'], tasks });
    expect([byReady.start[1], byReady.start[2]]).toEqual([10, 15]);
  });

  it('says when it is stuck', () => {
    const tasks = [task(1, 0, 0, { after: [1] }), task(1, 0, 1, { after: [0] })];
    expect(() => runTasks({ resources: ['rank'], tasks })).toThrow('stuck: 0 of 2');
  });
});

/** Random small graphs: tasks wait for earlier ones only, so that they can finish. */
const graphs: fc.Arbitrary<TaskGraph> = fc
  .record({
    resources: fc.array(fc.constantFrom('ready' as const, 'rank' as const), { minLength: 1, maxLength: 3 }),
    tasks: fc.array(
      fc.record({
        resource: fc.nat(2),
        occupy: fc.nat(4),
        latency: fc.nat(4),
        before: fc.array(fc.record({ back: fc.nat(6), left: fc.boolean() }), { maxLength: 3 }),
      }),
      { maxLength: 14 },
    ),
    seed: fc.nat(1000),
  })
  .map(({ resources, tasks, seed }) => ({
    resources,
    tasks: tasks.map(({ resource, occupy, latency, before }, i): Task => {
      const named = before.flatMap(({ back, left }) => (back < i ? [{ at: i - 1 - back, left }] : []));
      return {
        resource: resource % resources.length,
        // Distinct, and in no relation to the position.
        rank: ((i * 7 + seed) % 17) * 100 + i,
        occupy,
        latency,
        after: named.filter(({ left }) => !left).map(({ at }) => at),
        behind: named.filter(({ left }) => left).map(({ at }) => at),
      };
    }),
  }));

describe('properties', () => {
  it('agrees with going forward tick by tick', () => {
    fc.assert(
      fc.property(graphs, (graph) => {
        const fast = runTasks(graph);
        const slow = runTicks(graph);
        expect([...fast.start]).toEqual([...slow.start]);
        expect([...fast.done]).toEqual([...slow.done]);
        expect(fast.end).toBe(slow.end);
      }),
      { numRuns: 300 },
    );
  });

  it('does not depend on the order in which tasks are listed', () => {
    fc.assert(
      fc.property(graphs, (graph) => {
        const n = graph.tasks.length;
        const moved = (index: number): number => n - 1 - index;
        const reversed = graph.tasks
          .map((each) => ({ ...each, after: each.after.map(moved), behind: each.behind.map(moved) }))
          .reverse();
        const there = runTasks({ ...graph, tasks: reversed });
        expect([...there.start].reverse()).toEqual([...runTasks(graph).start]);
      }),
    );
  });

  it('keeps resources busy at most all the time, and one task at a time', () => {
    fc.assert(
      fc.property(graphs, (graph) => {
        const { start, left } = runTasks(graph);
        graph.resources.forEach((_, resource) => {
          const own = graph.tasks.flatMap((each, i) => (each.resource === resource && each.occupy > 0 ? [i] : []));
          own.sort((a, b) => start[a]! - start[b]!);
          own.slice(1).forEach((next, i) => expect(start[next]!).toBeGreaterThanOrEqual(left[own[i]!]!));
        });
      }),
    );
  });
});
