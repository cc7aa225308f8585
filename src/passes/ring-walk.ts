/** RingCode -> what each side does, one matrix after another, with loops unrolled. */
import type { Name } from '../ir/program.js';
import type { HandOffWhen, MatrixStep, RingStep } from './ring-code.js';

/** Tiles of a matrix, as the `count` units from `first` on of `total` that are shared out evenly. */
export interface Units {
  readonly total: number;
  readonly first: number;
  readonly count: number;
}

interface Matrix extends Omit<MatrixStep, 'units'> {
  readonly units: Units;
}

export type RingEvent =
  | (Matrix & { readonly kind: 'copy'; readonly from: number })
  | (Matrix & { readonly kind: 'take'; readonly outputs: number })
  | { readonly kind: 'begin' | 'end'; readonly stage: Name }
  | { readonly kind: 'handOff'; readonly when: HandOffWhen }
  /** Workers have agreed whether another iteration follows. */
  | { readonly kind: 'mayEnd' }
  | { readonly kind: 'fault'; readonly detail: string };

/** The iterations of a loop that are looked at: all, or where they only repeat, the first, the middle and the last. */
export function iterationsOf(trip: number, repeats: boolean): number[] {
  if (!repeats || trip <= 5) return Array.from({ length: trip }, (_, iteration) => iteration);
  return [0, 1, Math.floor(trip / 2), trip - 2, trip - 1];
}

/** @param places of the arguments of one call in the packed weights. @param repeating loops of which some iterations are enough */
export function walk(
  steps: readonly RingStep[],
  places: readonly (number | undefined)[],
  repeating: ReadonlySet<Name>,
): RingEvent[] {
  const walker = new Walker(places, repeating);
  walker.visit(steps);
  return walker.events;
}

class Walker {
  readonly events: RingEvent[] = [];
  private readonly pointers = new Map<string, number | undefined>();
  private readonly units = new Map<string, Units>();
  private readonly iterations = new Map<Name, number>();

  constructor(
    private readonly places: readonly (number | undefined)[],
    private readonly repeating: ReadonlySet<Name>,
  ) {}

  visit(steps: readonly RingStep[]): void {
    for (const step of steps) this.step(step);
  }

  private step(step: RingStep): void {
    switch (step.kind) {
      case 'argument':
        this.pointers.set(step.pointer, this.places[step.index]);
        return;
      case 'member': {
        const [of, iteration] = [this.pointers.get(step.of), this.iterations.get(step.over)];
        if (iteration === undefined) this.fault(`${step.pointer} steps with ${step.over}, which is no loop around it`);
        this.pointers.set(step.pointer, of === undefined ? undefined : of + (iteration ?? 0) * step.stride);
        return;
      }
      case 'part':
        this.units.set(step.units, { total: step.total, first: 0, count: step.total });
        return;
      case 'within': {
        const of = this.unitsNamed(step.of);
        if (step.first < 0 || step.first + step.count > of.count) {
          this.fault(`${step.units}: units ${step.first} to ${step.first + step.count} of ${of.count}`);
        }
        this.units.set(step.units, { total: of.total, first: of.first + step.first, count: step.count });
        return;
      }
      case 'copy': {
        const from = this.pointers.get(step.from);
        if (from === undefined) this.fault(`${step.from}, which is fetched, is no weight`);
        this.events.push({ ...step, units: this.unitsNamed(step.units), from: from ?? NaN });
        return;
      }
      case 'take':
        this.events.push({ ...step, units: this.unitsNamed(step.units) });
        return;
      case 'stage':
        this.events.push({ kind: 'begin', stage: step.name });
        this.visit(step.body);
        this.events.push({ kind: 'end', stage: step.name });
        return;
      case 'handOff':
        this.events.push(step);
        return;
      case 'loop':
        this.loop(step);
        return;
      case 'apart':
        this.apart(step.body);
        return;
      default:
        step satisfies never;
    }
  }

  private loop(loop: RingStep & { kind: 'loop' }): void {
    for (const iteration of iterationsOf(loop.trip, this.repeating.has(loop.over))) {
      this.iterations.set(loop.over, iteration);
      this.visit(loop.body);
      if (!loop.mayEnd) continue;
      const last = this.events.at(-1);
      if (last?.kind !== 'handOff' || last.when !== 'always') {
        this.fault(`the loop over ${loop.over} ends where workers have not agreed on it`);
      }
      this.events.push({ kind: 'mayEnd' });
    }
    this.iterations.delete(loop.over);
  }

  /** What not all workers do alike may neither wait for all of them nor use the ring, whose other side does all. */
  private apart(body: readonly RingStep[]): void {
    for (const step of body) {
      const detail = 'is done by some workers only, or not equally often by all';
      if (step.kind === 'handOff') this.fault(`hand-off ${step.place} ${detail}`);
      if (step.kind === 'take' || step.kind === 'copy') this.fault(`a matrix of ${step.width} columns ${detail}`);
      if (step.kind === 'loop' || step.kind === 'stage' || step.kind === 'apart') this.apart(step.body);
    }
  }

  private unitsNamed(name: string): Units {
    const units = this.units.get(name);
    if (units !== undefined) return units;
    this.fault(`${name} names no units`);
    return { total: 0, first: 0, count: 0 };
  }

  private fault(detail: string): void {
    this.events.push({ kind: 'fault', detail });
  }
}
