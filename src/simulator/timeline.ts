/**
 * A decoder layer in the terminal, not looped above looped, on one time scale: where the memory stands still is where the
 * row of the memory is empty.
 */
import { assert, defined } from '../util/assert.js';
import { significant } from '../util/units.js';
import { callSlices, orchestratorTrack, type Slice } from './call-events.js';
import type { Machine, Orchestration } from './machine.js';
import type { Workload } from './workload.js';

/** `separate` has a call for each layer, `looped` one for all. Lines are at most `width` wide. */
export function timeline(
  separate: Workload,
  looped: Workload,
  machine: Machine,
  orchestration: Orchestration,
  width = 100,
): string[] {
  const above = layerCall(separate, machine, orchestration);
  const spanUs = above.endUs - above.startUs;
  const below = steadyWindow(looped, machine, orchestration, spanUs);
  const tracks = [...new Set([...above.slices, ...below.slices].map(({ track }) => track))];
  const names = Math.max(...tracks.map((track) => track.length));
  const cells = Math.max(20, width - names - 3);
  const draw = (window: Window): string[] =>
    tracks.map((track) => `${track.padEnd(names)} |${row(window, track, spanUs, cells)}|`);
  const perCell = `a column is ${significant(spanUs / cells)} us; # and = are alternate layers, + is partly busy`;
  return [
    `not looped: a call for each layer, ${significant(spanUs)} us`,
    ...draw(above),
    '',
    `looped: the same ${significant(spanUs)} us, somewhere in the middle`,
    ...draw(below),
    '',
    perCell,
  ];
}

interface Window {
  readonly startUs: number;
  readonly endUs: number;
  readonly slices: readonly Slice[];
}

/** The call of the second layer, before and after which there are others, or of the only one. */
function layerCall(workload: Workload, machine: Machine, orchestration: Orchestration): Window {
  const layers = [...workload.calls.keys()].filter((call) => workload.calls[call]?.layer !== undefined);
  const wanted = defined(layers[1] ?? layers[0], 'a layer');
  for (const { call, slices } of callSlices(workload, machine, orchestration)) {
    if (call !== wanted) continue;
    const startUs = Math.min(...slices.map((slice) => slice.startUs));
    return { startUs, endUs: Math.max(...slices.map((slice) => slice.endUs)), slices: outermost(slices) };
  }
  throw new Error('internal error: the call is in the program');
}

/** From the middle of the longest call on. */
function steadyWindow(workload: Workload, machine: Machine, orchestration: Orchestration, spanUs: number): Window {
  let longest: Window | undefined;
  for (const { slices } of callSlices(workload, machine, orchestration)) {
    const startUs = slices.reduce((min, slice) => Math.min(min, slice.startUs), Infinity);
    const endUs = slices.reduce((max, slice) => Math.max(max, slice.endUs), 0);
    if (longest === undefined || endUs - startUs > longest.endUs - longest.startUs) {
      longest = { startUs, endUs, slices: outermost(slices) };
    }
  }
  assert(longest !== undefined, 'a program has calls');
  const startUs = (longest.startUs + longest.endUs - spanUs) / 2;
  return { startUs, endUs: startUs + spanUs, slices: longest.slices };
}

function outermost(slices: readonly Slice[]): Slice[] {
  return slices.filter(({ depth }) => depth === 0);
}

function row({ startUs, slices }: Window, track: string, spanUs: number, cells: number): string {
  const busy = new Float64Array(cells);
  const odd = new Float64Array(cells);
  const cellUs = spanUs / cells;
  for (const slice of slices) {
    if (slice.track !== track) continue;
    const from = (slice.startUs - startUs) / cellUs;
    const to = (slice.endUs - startUs) / cellUs;
    for (let cell = Math.max(0, Math.floor(from)); cell < Math.min(cells, Math.ceil(to)); cell++) {
      const part = Math.min(to, cell + 1) - Math.max(from, cell);
      busy[cell] = busy[cell]! + part;
      if ((slice.iteration ?? 0) % 2 === 1) odd[cell] = odd[cell]! + part;
    }
  }
  return Array.from(busy, (part, cell) => {
    if (part < 0.02) return ' ';
    if (part < 0.5) return '+';
    return track !== orchestratorTrack && odd[cell]! > part / 2 ? '=' : '#';
  }).join('');
}
