/**
 * checkRing: the certificate of checkSchedule goes on in the generated code. Where a backend streams weights through a ring,
 * two sides of every worker count slices and nothing else keeps them together; where it hands off by counters, all
 * workers must count alike. What the code does is given as RingCode; what it must do is derived anew from the certified plan
 * and the packed weights (wanted-weights.ts):
 *
 * - both sides go through the very matrices that the stages want, in their order, over the borders of stages, layers and
 *   tokens, and each tile falls to one worker, however many there are;
 * - the bytes that are fetched are those of that weight in that layer, and none beyond them;
 * - between stages that the plan orders lies a hand-off, which every worker counts; counters do not overflow;
 * - the ring fits into the memory, and no slice is larger than a slot.
 *
 * Then slot n mod `slots` is free when slice n comes, and nobody waits for what is not under way (tests/support/ring-machine.ts
 * runs it).
 */
import { packedBytes, tileRows } from '../ir/packed-layout.js';
import type { Call, Kernel, Name, Program } from '../ir/program.js';
import { defined } from '../util/assert.js';
import { ScheduleError, type Violation } from './check-schedule.js';
import type { Ring, RingCode, RingStep } from './ring-code.js';
import { walk, type RingEvent, type Units } from './ring-walk.js';
import { repeatingLoops, wantedBy, type Values, type Wanted, type WantedMatrix } from './wanted-weights.js';

/** Bulk copies want addresses and sizes in multiples of this. */
const copyUnit = 16;
/** Bytes that one barrier can wait for (PTX manual, mbarrier: tx-count). */
const mostSliceBytes = 2 ** 20 - 1;
/** Counters have 32 bits. */
const mostArrivals = 2 ** 32 - 1;

/** @throws ScheduleError with what is wrong in each kernel. @param codes of all kernels of a checked program */
export function checkRing(program: Program, codes: readonly RingCode[], ring: Ring): void {
  const violations = findRingViolations(program, codes, ring);
  if (violations.length > 0) throw new ScheduleError(violations);
}

export function findRingViolations(program: Program, codes: readonly RingCode[], ring: Ring): Violation[] {
  const values = new Map(program.values.map((value) => [value.name, value]));
  const missing = program.kernels.filter(({ name }) => codes.every(({ kernel }) => kernel !== name));
  return [
    ...wrongRing(ring),
    ...missing.map(({ name }) => malformed(name, 'there is no code of this kernel')),
    ...codes.flatMap((code) => wrongKernel(program, values, code, ring)),
  ];
}

function malformed(where: string, detail: string): Violation {
  return { kind: 'malformed', where, detail };
}

/** Of the ring as such. */
function wrongRing(ring: Ring): Violation[] {
  const { slots, slotBytes, before, behind, bytes, mostBytes } = ring;
  const violations: Violation[] = [];
  const where = 'the ring';
  if (before < 2 * 8 * slots || before % copyUnit !== 0) {
    violations.push({ kind: 'race', where, detail: `${before} bytes do not hold the barriers of ${slots} slots` });
  }
  const sum = before + slots * slotBytes + behind;
  if (sum > bytes) violations.push({ kind: 'race', where, detail: `it ends at ${sum} of ${bytes} bytes` });
  if (bytes > mostBytes) violations.push(malformed(where, `${bytes} bytes are asked for, and there are ${mostBytes}`));
  if (slotBytes % copyUnit !== 0 || slotBytes > mostSliceBytes) {
    violations.push(malformed(where, `slots of ${slotBytes} bytes cannot be filled by one copy`));
  }
  // While one slice is read, another must be able to come. How far ahead, within that, is a matter of speed alone.
  if (slots < 2) violations.push({ kind: 'early-overwrite', where, detail: `${slots} slots are not two` });
  return violations;
}

function wrongKernel(program: Program, values: Values, code: RingCode, ring: Ring): Violation[] {
  const kernel = program.kernels.find(({ name }) => name === code.kernel);
  if (kernel === undefined) return [malformed(code.kernel, 'there is no such kernel')];
  const calls = program.calls.filter((call) => call.kernel === kernel.name);
  if (calls.length !== code.places.length) {
    return [
      malformed(kernel.name, `it is called ${calls.length} times, with arguments of ${code.places.length} calls`),
    ];
  }
  const arrivals = handOffsOf(code.compute) * ring.mostWorkers;
  if (arrivals > mostArrivals) {
    return [{ kind: 'race', where: kernel.name, detail: `a counter of hand-offs ends at ${arrivals}, beyond 32 bits` }];
  }
  const seen = new Set<string>();
  return calls.flatMap((call, index) => {
    // What is wrong in one call is mostly wrong in all.
    return wrongCall({ values, kernel, call, code, ring, places: code.places[index]! }).filter(({ detail }) => {
      const known = seen.has(detail);
      seen.add(detail);
      return !known;
    });
  });
}

/** Hand-offs of one launch, at most. */
function handOffsOf(steps: readonly RingStep[]): number {
  return steps.reduce((sum, step) => {
    if (step.kind === 'handOff') return sum + 1;
    if (step.kind === 'loop') return sum + step.trip * handOffsOf(step.body);
    return step.kind === 'stage' ? sum + handOffsOf(step.body) : sum;
  }, 0);
}

interface CheckedCall {
  readonly values: Values;
  readonly kernel: Kernel;
  readonly call: Call;
  readonly code: RingCode;
  readonly ring: Ring;
  readonly places: readonly (number | undefined)[];
}

function wrongCall({ values, kernel, call, code, ring, places }: CheckedCall): Violation[] {
  const repeating = repeatingLoops(kernel);
  const wanted = wantedBy(call, kernel, values, repeating);
  const [stream, compute] = [walk(code.stream, places, repeating), walk(code.compute, places, repeating)];
  const where = kernel.name;
  const faults = [...stream, ...compute].flatMap((event) => (event.kind === 'fault' ? [event.detail] : []));
  if (faults.length > 0) return faults.map((detail) => malformed(where, detail));
  return [
    ...wrongSides(stream, compute, where),
    ...wrongMatrices(wanted, stream, compute, ring, where),
    ...wrongHandOffs(wanted, compute, where),
  ];
}

/** Each side does what is its own; the one that fetches waits for room alone, and never learns that a loop has ended. */
function wrongSides(stream: readonly RingEvent[], compute: readonly RingEvent[], where: string): Violation[] {
  const violations: Violation[] = [];
  if (stream.some(({ kind }) => kind !== 'copy')) {
    violations.push({ kind: 'deadlock', where, detail: 'the side that fetches waits for more than room in the ring' });
  }
  if (compute.some(({ kind }) => kind === 'copy')) {
    violations.push(malformed(where, 'the side that computes fetches weights'));
  }
  const end = compute.findLastIndex(({ kind }) => kind === 'mayEnd');
  if (end >= 0 && compute.slice(end).some(({ kind }) => kind === 'take')) {
    const detail = 'matrices follow a loop that may end early, while the other side still fetches for it';
    violations.push({ kind: 'deadlock', where, detail });
  }
  return violations;
}

/** Both sides beside what the stages want; the first difference is told. */
function wrongMatrices(
  wanted: Wanted,
  stream: readonly RingEvent[],
  compute: readonly RingEvent[],
  ring: Ring,
  where: string,
): Violation[] {
  const copies = stream.filter((event) => event.kind === 'copy');
  const takes = compute.filter((event) => event.kind === 'take');
  const count = Math.max(copies.length, takes.length, wanted.matrices.length);
  for (let at = 0; at < count; at++) {
    const [matrix, copy, take] = [wanted.matrices[at], copies[at], takes[at]];
    if (matrix === undefined) {
      const [what, kind] = copy === undefined ? (['taken', 'deadlock'] as const) : (['fetched', 'malformed'] as const);
      return [{ kind, where, detail: `${count - at} matrices are ${what} that no stage wants` }];
    }
    const stage = wanted.stages[matrix.stage]!;
    const name = `${matrix.weight} for stage ${stage.name}`;
    if (copy === undefined) return [{ kind: 'deadlock', where: stage.where, detail: `${name} is never fetched` }];
    if (take === undefined) return [malformed(stage.where, `${name} is never taken from the ring`)];
    const details = [...wrongCopy(matrix, copy, ring), ...wrongTake(matrix, take, copy)];
    if (details.length > 0) return details.map((detail) => malformed(stage.where, `${name}: ${detail}`));
  }
  return [];
}

type Event<K extends RingEvent['kind']> = RingEvent & { readonly kind: K };

/** Whether just the bytes of this weight are fetched, each tile by one worker. */
function wrongCopy({ tensor, placement, rows }: WantedMatrix, copy: Event<'copy'>, ring: Ring): string[] {
  const [outputs, width] = tensor.shape.map(Number) as [number, number];
  const tiles = Math.ceil(outputs / tileRows);
  const tileBytes = defined(packedBytes(tensor), 'bytes of a matrix') / tiles;
  const { units, sliceBytes, from } = copy;
  return [
    ...differs('the copy begins at byte', copy.from, placement.offset),
    ...differs('the copy is of', copy.format, tensor.dtype),
    ...differs('columns of the copy', copy.width, width),
    ...differs('rows of the copy', copy.rows, rows),
    ...differs('bytes of a tile', copy.tileBytes, tileBytes),
    ...differs('tiles that are fetched', units.count, tiles),
    ...(units.first < 0 || units.first + units.count > units.total ? [`no worker has all of ${textOf(units)}`] : []),
    ...(from + units.count * copy.tileBytes > placement.offset + placement.bytes ? ['it is read beyond its end'] : []),
    ...(sliceBytes <= 0 || sliceBytes > ring.slotBytes
      ? [`slices of ${sliceBytes} bytes in slots of ${ring.slotBytes}`]
      : []),
    ...([from, tileBytes, sliceBytes].some((bytes) => bytes % copyUnit !== 0) ? ['copies are not aligned'] : []),
  ];
}

/** Whether the other side takes the same slices, and computes all outputs from them. */
function wrongTake({ tensor }: WantedMatrix, take: Event<'take'>, copy: Event<'copy'>): string[] {
  return [
    ...differs('outputs that are computed', take.outputs, Number(tensor.shape[0])),
    ...differs('taken as', take.format, copy.format),
    ...differs('columns that are taken', take.width, copy.width),
    ...differs('rows that it is taken for', take.rows, copy.rows),
    ...differs('bytes of a tile that is taken', take.tileBytes, copy.tileBytes),
    ...differs('bytes of a slice that is taken', take.sliceBytes, copy.sliceBytes),
    ...differs('tiles that are taken', textOf(take.units), textOf(copy.units)),
  ];
}

function differs(what: string, found: number | string, wanted: number | string): string[] {
  return found === wanted ? [] : [`${what} ${found}, not ${wanted}`];
}

function textOf({ total, first, count }: Units): string {
  return `units ${first} to ${first + count} of ${total}`;
}

/** The stages are those of the plan, and hand-offs lie where it orders them. */
function wrongHandOffs(wanted: Wanted, compute: readonly RingEvent[], where: string): Violation[] {
  const stages: { name: Name; before: number; after: number; takes: number }[] = [];
  let handOffs = 0;
  let taken = 0;
  for (const event of compute) {
    if (event.kind === 'begin') stages.push({ name: event.stage, before: handOffs, after: handOffs, takes: 0 });
    if (event.kind === 'handOff' && event.when === 'always') handOffs++;
    if (event.kind === 'take') taken++;
    if (event.kind === 'end') Object.assign(stages.at(-1)!, { after: handOffs, takes: taken });
  }
  const count = Math.max(stages.length, wanted.stages.length);
  let matrices = 0;
  for (let i = 0; i < count; i++) {
    const [found, stage] = [stages[i]?.name, wanted.stages[i]];
    if (found === undefined || found !== stage?.name) {
      return [malformed(stage?.where ?? where, `stage ${found ?? 'none'}, where ${stage?.name ?? 'none'} is planned`)];
    }
    while ((wanted.matrices[matrices]?.stage ?? Infinity) <= i) matrices++;
    if (stages[i]!.takes !== matrices)
      return [malformed(stage.where, `matrices of ${found} are taken in another stage`)];
  }
  const missing = wanted.handOffs.find(({ from, to }) => stages[from]!.after >= stages[to]!.before);
  if (missing === undefined) return [];
  const [from, to] = [wanted.stages[missing.from]!, wanted.stages[missing.to]!];
  return [{ kind: 'race', where: to.where, detail: `no hand-off lies between ${from.name} and ${to.name}` }];
}
