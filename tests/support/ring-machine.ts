/**
 * Executes RingCode slice by slice: several workers of two sides each, a ring of slots for each worker, one counter of
 * hand-offs for all, in an order drawn from a seed. It knows nothing of programs and plans, and shares no code with the
 * certificate: what counts is what it sees happen.
 */
import type { RingCode, RingStep } from '../../src/passes/ring-code.js';
import { seededRandom } from './random-blocks.js';

export interface Machine {
  readonly workers: number;
  readonly slots: number;
  readonly slotBytes: number;
  /** Groups of rows that go through a matrix one after another. */
  readonly groups: number;
  /** More arrivals than workers that a hand-off waits for: 0, unless a fault is planted. */
  readonly extraArrivals?: number;
  /** The slice that is never freed: none, unless a fault is planted. */
  readonly keeps?: number;
}

/** What all workers took in a stage: `address+bytes`, sorted. */
export interface StageTrace {
  readonly name: string;
  readonly taken: readonly string[];
}

export interface Run {
  readonly stages: readonly StageTrace[];
  /** `i j`: a worker was seen in stage j before another had ended stage i. */
  readonly overlaps: ReadonlySet<string>;
  readonly fault: string | undefined;
}

interface Slot {
  filled: number;
  freed: number;
  from: number;
  bytes: number;
}

/** Something that goes on when its condition holds. */
type Thread = Generator<() => boolean, void>;

class Stuck extends Error {}

/** Runs one call of a kernel. */
export function runRing(code: RingCode, call: number, machine: Machine, seed: number): Run {
  const run = new RingRun(machine, code.places[call]!);
  const random = seededRandom(seed);
  const fetching = Array.from({ length: machine.workers }, (_, worker) => run.stream(code.stream, worker));
  const computing = Array.from({ length: machine.workers }, (_, worker) => run.compute(code.compute, worker));
  const fault = schedule(fetching, computing, random);
  return { stages: run.trace(), overlaps: run.overlaps, fault };
}

/** Threads take steps in any order until all that compute have ended, or nothing goes on. */
function schedule(fetching: readonly Thread[], computing: readonly Thread[], random: () => number): string | undefined {
  const waiting = [...fetching, ...computing].map((thread) => ({ thread, ready: (): boolean => true, ended: false }));
  const last = waiting.slice(fetching.length);
  try {
    while (last.some(({ ended }) => !ended)) {
      const able = waiting.filter(({ ended, ready }) => !ended && ready());
      if (able.length === 0) return 'nothing goes on';
      const chosen = able[Math.floor(random() * able.length)]!;
      const { value, done } = chosen.thread.next();
      chosen.ended = done === true;
      if (done !== true) chosen.ready = value;
    }
  } catch (error) {
    if (error instanceof Stuck) return error.message;
    throw error;
  }
  return undefined;
}

class RingRun {
  readonly overlaps = new Set<string>();
  private readonly slots: Slot[][];
  private arrivals = 0;
  /** Of every worker, the stages that it has ended; and what was taken in each. */
  private readonly ended: number[];
  private readonly stages: { name: string; taken: string[] }[] = [];

  constructor(
    private readonly machine: Machine,
    private readonly places: readonly (number | undefined)[],
  ) {
    const empty = (): Slot => ({ filled: 0, freed: 0, from: NaN, bytes: 0 });
    this.slots = Array.from({ length: machine.workers }, () => Array.from({ length: machine.slots }, empty));
    this.ended = Array.from({ length: machine.workers }, () => 0);
  }

  trace(): StageTrace[] {
    return this.stages.map(({ name, taken }) => ({ name, taken: taken.sort() }));
  }

  *stream(steps: readonly RingStep[], worker: number): Thread {
    let slice = 0;
    for (const { step, from, pieces } of this.execute(steps, worker)) {
      if (step.kind !== 'copy') continue;
      for (const { at, bytes } of pieces) {
        const slot = this.slots[worker]![slice % this.machine.slots]!;
        const round = Math.floor(slice / this.machine.slots);
        yield () => slot.freed === round;
        if (bytes > this.machine.slotBytes) throw new Stuck('a slice is larger than its slot');
        Object.assign(slot, { from: from + at, bytes, filled: slot.filled + 1 });
        slice++;
      }
    }
  }

  *compute(steps: readonly RingStep[], worker: number): Thread {
    let slice = 0;
    let handOffs = 0;
    let stage = 0;
    for (const { step, enters, pieces } of this.execute(steps, worker)) {
      if (step.kind === 'stage') {
        if (enters) this.begin(stage, step.name);
        else this.ended[worker] = ++stage;
        yield () => true;
      }
      if (step.kind === 'handOff' && step.when === 'always') {
        this.arrivals++;
        const wanted = ++handOffs * this.machine.workers + (this.machine.extraArrivals ?? 0);
        yield () => this.arrivals >= wanted;
      }
      if (step.kind !== 'take') continue;
      for (const { bytes } of pieces) {
        const slot = this.slots[worker]![slice % this.machine.slots]!;
        const round = Math.floor(slice / this.machine.slots);
        yield () => slot.filled > round;
        const { from } = slot;
        // Others go on while it is read.
        yield () => true;
        if (slot.filled !== round + 1) throw new Stuck('a slice is overwritten while it is read');
        if (slot.bytes !== bytes) throw new Stuck(`a slice of ${slot.bytes} bytes is taken as ${bytes}`);
        this.stages[stage]?.taken.push(`${from}+${bytes}`);
        if (slice !== this.machine.keeps) slot.freed++;
        slice++;
      }
    }
  }

  /** Notes which stages others are still in. */
  private begin(stage: number, name: string): void {
    this.stages[stage] ??= { name, taken: [] };
    const slowest = Math.min(...this.ended);
    for (let earlier = slowest; earlier < stage; earlier++) this.overlaps.add(`${earlier} ${stage}`);
  }

  /** The steps that one worker goes through, with loops unrolled; stages twice, at their beginning and end. */
  private *execute(
    steps: readonly RingStep[],
    worker: number,
    names = {
      pointers: new Map<string, number>(),
      units: new Map<string, readonly [number, number]>(),
      loops: new Map<string, number>(),
    },
  ): Generator<{ step: RingStep; enters: boolean; from: number; pieces: readonly Piece[] }> {
    const { pointers, units, loops } = names;
    for (const step of steps) {
      let [from, pieces]: [number, readonly Piece[]] = [NaN, []];
      if (step.kind === 'argument') pointers.set(step.pointer, this.places[step.index] ?? NaN);
      if (step.kind === 'member')
        pointers.set(step.pointer, pointers.get(step.of)! + step.stride * (loops.get(step.over) ?? NaN));
      if (step.kind === 'part') {
        const border = (w: number): number => Math.floor((step.total * w) / this.machine.workers);
        units.set(step.units, [border(worker), border(worker + 1)]);
      }
      if (step.kind === 'within') {
        const clamp = (unit: number): number => Math.min(Math.max(unit - step.first, 0), step.count);
        const [begin, end] = units.get(step.of) ?? [0, 0];
        units.set(step.units, [clamp(begin), clamp(end)]);
      }
      if (step.kind === 'copy' || step.kind === 'take') {
        from = step.kind === 'copy' ? (pointers.get(step.from) ?? NaN) : NaN;
        const [begin, end] = units.get(step.units) ?? [0, 0];
        for (let group = 0; group < this.machine.groups; group++)
          for (let tile = begin; tile < end; tile++) pieces = [...pieces, ...piecesOf(step, tile)];
      }
      yield { step, enters: true, from, pieces };
      if (step.kind === 'stage') {
        yield* this.execute(step.body, worker, names);
        yield { step, enters: false, from, pieces };
      }
      if (step.kind === 'apart' && worker === 0) yield* this.execute(step.body, worker, names);
      if (step.kind !== 'loop') continue;
      for (let iteration = 0; iteration < step.trip; iteration++) {
        loops.set(step.over, iteration);
        yield* this.execute(step.body, worker, names);
      }
    }
  }
}

interface Piece {
  /** Bytes of the matrix before it. */
  readonly at: number;
  readonly bytes: number;
}

function piecesOf({ tileBytes, sliceBytes }: { tileBytes: number; sliceBytes: number }, tile: number): Piece[] {
  if (sliceBytes <= 0) throw new Stuck('slices without bytes');
  const count = Math.ceil(tileBytes / sliceBytes);
  return Array.from({ length: count }, (_, index) => ({
    at: tile * tileBytes + index * sliceBytes,
    bytes: Math.min(sliceBytes, tileBytes - index * sliceBytes),
  }));
}
