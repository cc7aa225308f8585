import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parts } from '../../tests/simulator/random-part.js';
import { runTicks } from '../../tests/simulator/tick-engine.js';
import { toyMachine } from '../../tests/simulator/toy-machine.js';
import { runTasks } from './engine.js';
import { buildPartGraph } from './part-graph.js';
import { runWholePart, simulatePart } from './simulate-part.js';
import { noCost, type WorkInput, type WorkNode, type WorkPart } from './workload.js';

const us = 1e6;

function node(name: string, weightBytes: number, rest: Partial<WorkNode> = {}): WorkNode {
  const cost = { ...noCost, weightBytes };
  return { name, kind: 'linear', category: 'gemm', stage: 0, cost, rows: 1, streams: 1, inputs: [], ...rest };
}

const carriedFrom = (last: number): readonly WorkInput[] => [{ node: last, distance: 1, mode: 'whole' }];
const whole: readonly WorkInput[] = [{ node: 0, distance: 0, mode: 'whole' }];

function once(nodes: readonly WorkNode[], ahead = 1e6): WorkPart {
  return { nodes, trip: 1, ahead };
}

describe('closed forms', () => {
  it('one operator takes its bytes at the bandwidth, and the latencies', () => {
    const machine = toyMachine({ 'memory.latency': 3, 'latency.linear': 5 });
    const { total, memory, drain, bytes } = simulatePart(once([node('a', 20)]), machine, 0);
    expect({ total, memory, drain, bytes }).toEqual({ total: 28 * us, memory: 20 * us, drain: 8 * us, bytes: 20 });
  });

  it('an efficiency stretches the load, far memory works beside the near one', () => {
    expect(simulatePart(once([node('a', 20)]), toyMachine({ 'memory.efficiency': 0.5 }), 0).total).toBe(40 * us);
    const bandwidth = { value: 1e6, unit: 'B/s', source: 'test', basis: 'inferred' } as const;
    const farMemory = { bandwidth, capacity: { ...bandwidth, value: 1e12, unit: 'B' } } as const;
    // Halves of every tile come from both at once.
    expect(simulatePart(once([node('a', 20)]), toyMachine({}, { farMemory }), 0.5).total).toBe(10 * us);
  });

  it('two operators: the second loads while the first works, as far as the buffer allows', () => {
    const machine = toyMachine({ 'latency.linear': 50 });
    const nodes = [node('a', 20), node('b', 20, { inputs: whole })];
    // All 40 bytes are there at 40; the first is done at 70, the second 50 later.
    expect(simulatePart(once(nodes), machine, 0).total).toBe(120 * us);
    // With room for 10 bytes, 10 more after the first has taken its last tile; 10 are left when the second can start.
    expect(simulatePart(once(nodes, 10), machine, 0).total).toBe(130 * us);
  });

  it('a memory-bound loop is fill + n x bytes + drain, once each', () => {
    const machine = toyMachine({ 'memory.latency': 4, 'latency.linear': 6 });
    const nodes = [node('a', 20, { inputs: carriedFrom(0) })];
    const { total, period } = simulatePart({ nodes, trip: 100, ahead: 1000 }, machine, 0);
    expect(total).toBe((100 * 20 + 4 + 6) * us);
    expect(period).toBe(20 * us);
  });

  it('a loop that loads nothing for its next iteration pays its latencies in each', () => {
    const machine = toyMachine({ 'memory.latency': 4, 'latency.linear': 6 });
    const waiting = { ...machine, onChip: { ...machine.onChip, nextIteration: 'nothing' as const } };
    const nodes = [node('a', 20, { inputs: carriedFrom(1) }), node('b', 20, { inputs: whole })];
    // Within an iteration all is as planned: the second loads while the first works, and is done 6 after its last tile.
    const { total, period } = simulatePart({ nodes, trip: 100, ahead: 1000 }, waiting, 0);
    expect(period).toBe((40 + 4 + 6) * us);
    expect(total).toBe(100 * period);
    expect(simulatePart({ nodes, trip: 100, ahead: 1000 }, machine, 0).total).toBe((100 * 40 + 4 + 6) * us);
  });

  it('what loading and working do not hide of each other comes on top', () => {
    const overlap = { value: 0.75, unit: '1', source: 'test', basis: 'inferred' } as const;
    const slow = toyMachine({ 'onChip.bandwidth': 0.5e6 });
    // 20 tiles: each is loaded in 1 us and worked on in 2, the first load before all work.
    expect(simulatePart(once([node('a', 20)]), slow, 0).total).toBe((1 + 40) * us);
    const machine = { ...slow, compute: { ...slow.compute, overlap } };
    expect(simulatePart(once([node('a', 20)]), machine, 0).total).toBe((1.25 + 40 + 20 * 0.25) * us);
  });

  it('a latency-bound loop is n x latency behind the first tile', () => {
    const machine = toyMachine({ 'latency.linear': 60 });
    const nodes = [node('a', 20, { inputs: carriedFrom(0) })];
    // First done at 80; the next tiles have been loaded meanwhile.
    expect(simulatePart({ nodes, trip: 10, ahead: 1000 }, machine, 0).total).toBe((20 + 10 * 60) * us);
  });

  it('experts whose address is not known load behind their router, also in a loop', () => {
    const machine = toyMachine({ 'latency.linear': 5 });
    const nodes = [
      node('router', 10, { inputs: carriedFrom(1) }),
      node('expert', 20, { inputs: whole, addressed: true }),
    ];
    // Router: weights loaded ahead after the first time. 10 + 5, then 20 + 5; later 5 + (20 + 5).
    expect(simulatePart({ nodes, trip: 1, ahead: 1000 }, machine, 0).total).toBe(40 * us);
    const looped = simulatePart({ nodes, trip: 50, ahead: 1000 }, machine, 0);
    expect(looped.period).toBeGreaterThanOrEqual(30 * us);
    expect(looped.total).toBeLessThan(50 * 40 * us);
  });

  it('sequences pass the attention of a dataflow kernel one after another, and side by side elsewhere', () => {
    const attention = (sequences: number): WorkPart => {
      const cost = { ...noCost, stateBytes: 20 * sequences };
      return once([node('attention', 0, { kind: 'attention', cost, rows: sequences, streams: 2 * sequences })]);
    };
    // Memory gives two bytes in the time in which the stage reads one; the first tile is there after half a byte's time.
    const machine = toyMachine({ 'compute.headBandwidth': 0.5e6 });
    expect(simulatePart(attention(1), machine, 0).total).toBe((1 + 40) * us);
    expect(simulatePart(attention(2), machine, 0).total).toBe((1 + 80) * us);
    // As many streams as there are heads: memory is what counts, and the last tile.
    const sequential = { ...machine, style: 'sequential' as const };
    expect(simulatePart(attention(2), sequential, 0).total).toBe((40 + 0.5) * us);
  });

  it('queries that share keys and values are computed in whole row tiles', () => {
    const machine = toyMachine({ 'compute.peak': 1e6, 'compute.rowTile': 4 });
    const time = (queries: number): number => {
      const cost = { ...noCost, flops: 12 * queries };
      return simulatePart(once([node('attention', 0, { kind: 'attention', cost, queries })]), machine, 0).total;
    };
    expect([1, 4, 5, 8].map(time)).toEqual([48 * us, 48 * us, 96 * us, 96 * us]);
  });

  it('a norm with a few weights of its own is not worked on as long as a matrix', () => {
    const machine = toyMachine({ 'compute.peak': 1e6, 'onChip.bandwidth': 2e6 });
    const matrix = node('matrix', 20, { cost: { ...noCost, weightBytes: 20, flops: 100 }, inputs: whole });
    const norm = node('norm', 2, { kind: 'elementwise' });
    // The norm is done half a microsecond after its two bytes are there; the matrix begins with the third.
    expect(simulatePart(once([norm, matrix]), machine, 0).total).toBe((3 + 100) * us);
  });

  it('a sum over sockets overlaps with its producer, or stands alone', () => {
    const machine = toyMachine({ 'link.latency': 1 });
    const sum = node('sum', 0, {
      kind: 'collective',
      collective: { kind: 'sum', sockets: 4, bytes: 40 },
      inputs: [{ node: 0, distance: 0, mode: 'stream' }],
    });
    const nodes = [node('a', 40), sum];
    // A ring over 4: 60 us of traffic, 6 steps of latency.
    const alone = { ...machine, link: { ...machine.link, collectives: 'alone' as const } };
    expect(simulatePart(once(nodes), alone, 0).total).toBe((40 + 60 + 6) * us);
    // Pipelined in 8 pieces: the link starts when an eighth is there.
    expect(simulatePart(once(nodes), machine, 0).total).toBe((5 + 60 + 6) * us);
  });
});

describe('properties', () => {
  const machine = toyMachine({ 'latency.linear': 2, 'latency.elementwise': 1, 'memory.latency': 1, 'link.latency': 1 });
  const sequential = { ...machine, style: 'sequential' as const };
  const waiting = { ...machine, onChip: { ...machine.onChip, nextIteration: 'nothing' as const } };

  it('agrees with the tick by tick engine', () => {
    fc.assert(
      fc.property(parts, fc.constantFrom(machine, waiting), (part, which) => {
        const graph = buildPartGraph(part, which, { iterations: Math.min(2, part.trip), farShare: 0 });
        const fast = runTasks(graph);
        // Whole microseconds, so that ticks can be microseconds.
        const inTicks = {
          ...graph,
          tasks: graph.tasks.map((task) => ({
            ...task,
            occupy: Math.round(task.occupy / us),
            latency: task.latency / us,
          })),
        };
        expect([...runTicks(inTicks).done]).toEqual([...runTasks(inTicks).done]);
        expect(fast.end).toBeGreaterThan(-1);
      }),
      { numRuns: 40 },
    );
  });

  it('inserting steady iterations gives what a full simulation gives, to the picosecond', () => {
    fc.assert(
      fc.property(parts, fc.constantFrom(machine, sequential, waiting), (part, which) => {
        const long = { ...part, trip: part.trip + 60 };
        expect(simulatePart(long, which, 0).total).toBe(runWholePart(long, which, 0).timing.end);
      }),
      { numRuns: 100 },
    );
  });

  it('reads every byte of the part, and never more than one at a time', () => {
    fc.assert(
      fc.property(parts, fc.constantFrom(machine, sequential, waiting), (part, which) => {
        const result = simulatePart(part, which, 0);
        const bytes = part.nodes.reduce((sum, { cost }) => sum + cost.weightBytes, 0) * part.trip;
        expect(result.bytes).toBeCloseTo(bytes, 6);
        expect(result.memory).toBeLessThanOrEqual(result.total);
        expect(Object.values(result.byCategory).reduce((a, b) => a + b, 0)).toBe(result.total);
      }),
    );
  });

  it('a loop is never slower than its iterations one by one', () => {
    fc.assert(
      fc.property(parts, fc.constantFrom(machine, sequential, waiting), (part, which) => {
        // What is loaded ahead can delay an addressed load by a tile; everything else only gains.
        fc.pre(part.nodes.every(({ addressed }) => addressed !== true));
        const { total } = simulatePart({ ...part, trip: 1 }, which, 0);
        expect(simulatePart(part, which, 0).total).toBeLessThanOrEqual(part.trip * total);
      }),
    );
  });

  it('more bandwidth never hurts, and equal input gives equal output', () => {
    fc.assert(
      fc.property(parts, (part) => {
        // Two that compete for a resource may come in another order, which is Graham's anomaly and no error.
        fc.pre(part.nodes.every(({ addressed }) => addressed !== true));
        fc.pre(part.nodes.filter(({ collective }) => collective !== undefined).length <= 1);
        const faster = toyMachine({
          'latency.linear': 2,
          'latency.elementwise': 1,
          'memory.latency': 1,
          'link.latency': 1,
          'memory.bandwidth': 2e6,
        });
        const result = simulatePart(part, machine, 0);
        expect(simulatePart(part, machine, 0)).toEqual(result);
        expect(simulatePart(part, faster, 0).total).toBeLessThanOrEqual(result.total);
      }),
    );
  });
});
