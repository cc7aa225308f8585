/**
 * Chrome trace JSON, which Perfetto opens: one track for the orchestrator, each memory, the link, and each operator.
 * Loads carry their bytes and how long the memory stood still before them. Format: "Trace Event Format", complete events.
 */
import { callSlices, type Slice } from './call-events.js';
import type { Machine, Orchestration } from './machine.js';
import type { Workload } from './workload.js';

const memoryTrack = 'memory';

/** Pieces of the file, so that a long trace is never in memory whole. */
export function* chromeTrace(workload: Workload, machine: Machine, orchestration: Orchestration): Generator<string> {
  const tracks = new Map<string, number>();
  const freeAt = new Map<string, number>();
  const title = `${workload.name} on ${machine.title}, socket 1 of ${workload.sockets}, ${workload.schedule}`;
  yield `{"displayTimeUnit":"ns","traceEvents":[\n${JSON.stringify(metadata('process_name', 0, title))}`;
  for (const { call, kernel, slices } of callSlices(workload, machine, orchestration)) {
    for (const slice of slices) {
      let track = tracks.get(slice.track);
      if (track === undefined) {
        track = tracks.size + 1;
        tracks.set(slice.track, track);
        yield `,\n${JSON.stringify(metadata('thread_name', track, slice.track))}`;
        yield `,\n${JSON.stringify(sortIndex(track))}`;
      }
      const stalledUs = slice.startUs - (freeAt.get(slice.track) ?? 0);
      freeAt.set(slice.track, Math.max(slice.endUs, freeAt.get(slice.track) ?? 0));
      // Only memories stall: operators wait for their turn.
      const stalled = slice.track.endsWith(memoryTrack) && stalledUs > 0 ? { stalled_us: stalledUs } : {};
      yield `,\n${JSON.stringify(event(slice, track, { call, kernel, ...stalled }))}`;
    }
  }
  yield '\n]}\n';
}

function metadata(name: string, tid: number, value: string): object {
  return { ph: 'M', pid: 1, tid, name, args: { name: value } };
}

/** Tracks in the order in which they are first used. */
function sortIndex(tid: number): object {
  return { ph: 'M', pid: 1, tid, name: 'thread_sort_index', args: { sort_index: tid } };
}

function event(slice: Slice, tid: number, about: object): object {
  const { name, startUs, endUs, iteration, bytes } = slice;
  const args = { ...about, iteration, bytes };
  return {
    ph: 'X',
    pid: 1,
    tid,
    name,
    cat: slice.depth === 0 ? 'operator' : 'tile',
    ts: startUs,
    dur: endUs - startUs,
    args,
  };
}
