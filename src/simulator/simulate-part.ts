/**
 * The time of one part of a kernel. Iterations of a loop soon repeat with a fixed shift; from then on the rest is known:
 *
 *   | 0 | 1 | 2 | 3 | 4 |4+d|4+2d| ...    -->    simulate some iterations, insert the missing ones where the shift is steady
 *
 * The shift must hold for every task over more iterations than tasks can reach back; otherwise all are simulated. Times
 * are whole picoseconds, so that what comes out is what a full simulation gives (a test compares them).
 */
import { runTasks, type Timing } from './engine.js';
import type { Machine } from './machine.js';
import { buildPartGraph, type PartGraph } from './part-graph.js';
import { categories, type Category, type WorkPart } from './workload.js';

/** Times in picoseconds, bytes of one socket. */
export interface PartResult {
  readonly total: number;
  /** Memory at work. */
  readonly memory: number;
  /** After the last load. */
  readonly drain: number;
  readonly link: number;
  readonly bytes: number;
  /** By what the result waited for: adds up to `total`. */
  readonly byCategory: Readonly<Record<Category, number>>;
  /** Between the ends of two iterations in the steady state; `total` where there is one iteration only. */
  readonly period: number;
}

export interface PartRun {
  readonly graph: PartGraph;
  readonly timing: Timing;
}

/** All iterations, for traces and as a reference. */
export function runWholePart(part: WorkPart, machine: Machine, farShare: number): PartRun {
  const graph = buildPartGraph(part, machine, { iterations: part.trip, farShare });
  return { graph, timing: runTasks(graph) };
}

export function simulatePart(part: WorkPart, machine: Machine, farShare: number): PartResult {
  const { reach } = buildPartGraph(part, machine, { iterations: 1, farShare });
  // Mostly a part is steady at once; where it is not, a longer look is cheaper than all of it.
  for (const iterations of [2 * reach + 4, 3 * reach + 12]) {
    if (iterations >= part.trip) break;
    const graph = buildPartGraph(part, machine, { iterations, farShare });
    const run = { graph, timing: runTasks(graph) };
    const steady = iterations - reach - 1;
    const shift = steadyShift(run, steady, reach + 1);
    if (shift !== undefined) return summarize(run, part, { at: steady, shift, more: part.trip - iterations });
  }
  return summarize(runWholePart(part, machine, farShare), part, { at: 0, shift: 0, more: 0 });
}

/** By how much every task of the `window` iterations up to `last` is later than in the iteration before, if equal. */
function steadyShift({ graph, timing }: PartRun, last: number, window: number): number | undefined {
  const { perIteration, about } = graph;
  const from = (last - window + 1) * perIteration;
  if (from < perIteration) return undefined;
  const end = (last + 1) * perIteration;
  const shift = timing.done[end - 1]! - timing.done[end - 1 - perIteration]!;
  for (let task = from; task < end; task++) {
    // Joins only pass on the times of others; those that wait for nothing are done at the start.
    if (about[task % perIteration]!.kind === 'join') continue;
    const before = task - perIteration;
    if (timing.start[task]! - timing.start[before]! !== shift) return undefined;
    if (timing.done[task]! - timing.done[before]! !== shift) return undefined;
  }
  return shift;
}

interface Inserted {
  readonly at: number;
  readonly shift: number;
  readonly more: number;
}

function summarize({ graph, timing }: PartRun, part: WorkPart, inserted: Inserted): PartResult {
  const { tasks, about, perIteration } = graph;
  const iterations = tasks.length / perIteration;
  let memory = 0;
  let link = 0;
  let bytes = 0;
  let lastLoad = 0;
  const ends = Array.from({ length: iterations }, () => new Float64Array(part.nodes.length));
  for (const [task, { resource, occupy }] of tasks.entries()) {
    const { kind, node, bytes: size } = about[task % perIteration]!;
    const iteration = Math.floor(task / perIteration);
    const times = inserted.more > 0 && iteration === inserted.at ? 1 + inserted.more : 1;
    if (resource === graph.nearMemory) memory += occupy * times;
    if (graph.names[resource] === 'link') link += occupy * times;
    if (kind === 'load') {
      bytes += size * times;
      lastLoad = Math.max(lastLoad, timing.left[task]!);
    }
    const own = ends[iteration]!;
    own[node] = Math.max(own[node]!, timing.done[task]!);
  }
  const total = timing.end + inserted.more * inserted.shift;
  const drain = bytes > 0 ? timing.end - lastLoad : 0;
  const middle = Math.max(1, Math.min(inserted.at, iterations - 1));
  const periodOf = (i: number): number => Math.max(...ends[i]!) - Math.max(...ends[i - 1]!);
  const period =
    inserted.more > 0 ? inserted.shift : iterations > 1 ? periodOf(Math.max(middle, iterations >> 1)) : total;
  return { total, memory, drain, link, bytes, period, byCategory: attribute(ends, part, inserted) };
}

/** Time goes to the operator whose end moved the front of finished work forward. */
function attribute(ends: readonly Float64Array[], { nodes }: WorkPart, inserted: Inserted): Record<Category, number> {
  const shares = Object.fromEntries(categories.map((category) => [category, 0])) as Record<Category, number>;
  let front = 0;
  for (const [iteration, own] of ends.entries()) {
    const times = inserted.more > 0 && iteration === inserted.at ? 1 + inserted.more : 1;
    for (const [index, { category }] of nodes.entries()) {
      const step = Math.max(0, own[index]! - front);
      shares[category] += step * times;
      front += step;
    }
  }
  return shares;
}
