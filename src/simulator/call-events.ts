/**
 * What happens inside the calls of a token, as slices on tracks: the orchestrator, memories, the link, and one track for
 * each operator. Trace files and terminal timelines are drawn from it. Here all iterations are simulated.
 */
import { psToMicroseconds } from './node-times.js';
import { farShareOf, launchSteps, syncTime } from './simulate.js';
import { runWholePart, type PartRun } from './simulate-part.js';
import type { Machine, Orchestration } from './machine.js';
import { atWorkingSet } from './working-set.js';
import type { WorkKernel, WorkPart, Workload } from './workload.js';

export interface Slice {
  readonly track: string;
  readonly name: string;
  readonly startUs: number;
  readonly endUs: number;
  /** Slices of a lower depth contain those of a higher one. */
  readonly depth: 0 | 1;
  readonly iteration?: number;
  readonly bytes?: number;
}

export const orchestratorTrack = 'orchestrator';

/** One after another; `call` is the number of the call in the program. */
export function* callSlices(
  workload: Workload,
  machine: Machine,
  orchestration: Orchestration,
): Generator<{ readonly call: number; readonly kernel: string; readonly slices: readonly Slice[] }> {
  const farShare = farShareOf(workload, machine);
  const caching = atWorkingSet(machine, workload.residentBytes);
  const bodies = new Map<WorkKernel, readonly Slice[]>();
  let nowUs = 0;
  for (const [call, { kernel }] of workload.calls.entries()) {
    const slices: Slice[] = [];
    for (const { name, ps } of launchSteps(machine, orchestration)) {
      const endUs = nowUs + psToMicroseconds(ps);
      slices.push({ track: orchestratorTrack, name, startUs: nowUs, endUs, depth: 0 });
      nowUs = endUs;
    }
    const body = bodies.get(kernel) ?? kernelSlices(kernel, caching, farShare);
    bodies.set(kernel, body);
    slices.push(...body.map((slice) => shifted(slice, nowUs)));
    nowUs += body.reduce((end, { endUs }) => Math.max(end, endUs), 0);
    const endUs = nowUs + psToMicroseconds(syncTime(machine, kernel, workload.sockets));
    slices.push({ track: orchestratorTrack, name: 'sync', startUs: nowUs, endUs, depth: 0 });
    nowUs = endUs;
    yield { call, kernel: kernel.name, slices: slices.filter((slice) => slice.endUs > slice.startUs) };
  }
}

/** The inside of one call; of a kernel that makes many tokens, the first. */
function kernelSlices(kernel: WorkKernel, machine: Machine, farShare: number): Slice[] {
  const slices: Slice[] = [];
  let startUs = 0;
  for (const part of kernel.parts) {
    const run = runWholePart(part, machine, farShare);
    slices.push(...partSlices(part, run).map((slice) => shifted(slice, startUs)));
    startUs += psToMicroseconds(run.timing.end);
  }
  return slices;
}

function shifted(slice: Slice, byUs: number): Slice {
  return { ...slice, startUs: slice.startUs + byUs, endUs: slice.endUs + byUs };
}

function partSlices({ nodes }: WorkPart, { graph, timing }: PartRun): Slice[] {
  const slices: Slice[] = [];
  const spans = new Map<string, { node: number; iteration: number; start: number; end: number; bytes: number }>();
  const order = [...graph.tasks.keys()].sort((a, b) => timing.start[a]! - timing.start[b]! || a - b);
  for (const task of order) {
    const { kind, node, tile, bytes } = graph.about[task % graph.perIteration]!;
    const iteration = Math.floor(task / graph.perIteration);
    const { resource } = graph.tasks[task]!;
    const [start, left, done] = [timing.start[task]!, timing.left[task]!, timing.done[task]!];
    if (kind === 'join') continue;
    const operator = nodes[node]?.name ?? 'operator';
    const times = { startUs: psToMicroseconds(start), endUs: psToMicroseconds(left), iteration, bytes };
    if (kind === 'load') {
      slices.push({ track: graph.names[resource]!, name: operator, depth: 0, ...times });
      continue;
    }
    slices.push({ track: operator, name: `tile ${tile}`, depth: 1, ...times });
    const key = `${iteration}.${node}`;
    const span = spans.get(key) ?? { node, iteration, start, end: done, bytes: 0 };
    spans.set(key, { ...span, end: Math.max(span.end, done), bytes: span.bytes + bytes });
  }
  const ends = new Map<number, number>();
  for (const { node, iteration, start, end, bytes } of [...spans.values()].sort((a, b) => a.start - b.start)) {
    // A result may still be on its way when the next iteration begins; slices of one track do not overlap.
    const from = Math.max(start, ends.get(node) ?? 0);
    ends.set(node, end);
    const name = nodes[node]?.name ?? 'operator';
    slices.push({
      track: name,
      name,
      startUs: psToMicroseconds(from),
      endUs: psToMicroseconds(end),
      depth: 0,
      iteration,
      bytes,
    });
  }
  return slices;
}
