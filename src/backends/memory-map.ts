/**
 * Where everything is: every value of the programs gets an offset into the arena (or the packed weights), the locals of
 * kernels get scratch space that all kernels share, and what each worker computes for itself lies in its own memory.
 * Names are shared between the programs of a plan, so that a KV cache is the same one in both.
 */
import type { Argument, Name, Program, Tensor, Value } from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import { assert, defined } from '../util/assert.js';

const alignment = 64;

/** Hands out offsets, one after another, each at the start of a cache line. */
export class Allocator {
  private end: number;

  constructor(start = 0) {
    this.end = start;
  }

  take(bytes: number): number {
    const offset = this.end;
    this.end = alignUp(offset + bytes);
    assert(Number.isSafeInteger(this.end), 'memory beyond 2^53 bytes');
    return offset;
  }

  get size(): number {
    return this.end;
  }
}

function alignUp(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

export type Place = { readonly space: 'arena' | 'weights'; readonly offset: number };

export interface MemoryMap {
  /** Bytes taken by values; scratch comes behind them. */
  readonly valueBytes: number;
  placeOf(value: Name): Place;
  /** Distance between the members of a stack; the members stand in order. */
  strideOf(values: readonly Name[]): number;
}

/** Bytes that a value of a program takes. */
export type RoomOf = (tensor: Tensor, program: Program) => number;

/** Room of one value at the largest extents. */
export function bytesAtLimits(tensor: Tensor, program: Program): number {
  return tensorBytes(tensor, program.limits);
}

export function mapMemory(programs: readonly Program[], roomOf: RoomOf = bytesAtLimits): MemoryMap {
  const places = new Map<Name, Place>();
  const allocator = new Allocator();
  const values = valuesOf(programs, roomOf);
  const place = (name: Name): void => {
    const { tensor, program, value } = defined(values.get(name), name);
    if (places.has(name)) return;
    const { origin } = value;
    if (origin.kind === 'checkpoint') {
      places.set(name, { space: 'weights', offset: defined(origin.placement, `placement of ${name}`).offset });
    } else {
      places.set(name, { space: 'arena', offset: allocator.take(roomOf(tensor, program)) });
    }
  };
  // Members of a stack first, in their order, so that they have a constant stride.
  for (const stack of stacksOf(programs)) stack.forEach(place);
  for (const name of values.keys()) place(name);
  const placeOf = (name: Name): Place => defined(places.get(name), `place of ${name}`);
  return { valueBytes: allocator.size, placeOf, strideOf: (stack) => strideOf(stack.map(placeOf)) };
}

function strideOf(places: readonly Place[]): number {
  const [first, second] = places;
  if (first === undefined || second === undefined) return 0;
  const stride = second.offset - first.offset;
  places.forEach(({ offset }, index) => {
    assert(offset === first.offset + index * stride, 'members of a stack have no constant stride');
  });
  return stride;
}

interface Mapped {
  readonly value: Value;
  readonly tensor: Tensor;
  readonly program: Program;
}

/** Values of all programs; of equal names, the one that takes more room. */
function valuesOf(programs: readonly Program[], roomOf: RoomOf): Map<Name, Mapped> {
  const values = new Map<Name, Mapped>();
  for (const program of programs) {
    for (const value of program.values) {
      const known = values.get(value.name);
      const agrees = known === undefined || placementText(known.value) === placementText(value);
      assert(agrees, `programs of one plan place ${value.name} differently`);
      const bytes = roomOf(value.tensor, program);
      if (known !== undefined && roomOf(known.tensor, known.program) >= bytes) continue;
      values.set(value.name, { value, tensor: value.tensor, program });
    }
  }
  return values;
}

function placementText({ origin }: Value): string {
  return origin.kind === 'checkpoint' ? JSON.stringify(origin.placement ?? null) : '';
}

function stacksOf(programs: readonly Program[]): (readonly Name[])[] {
  return programs
    .flatMap((program) => program.calls.flatMap((call) => call.args))
    .filter((argument): argument is Argument & { kind: 'stack' } => argument.kind === 'stack')
    .map((argument) => argument.values);
}
