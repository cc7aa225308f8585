/**
 * packWeights: the order in which the program consumes its weights becomes their order in memory, so that reading a token's
 * weights is one walk through the packed file, with a constant stride from layer to layer:
 *
 *   checkpoint: embed | layer 0: down gate up k o q v | ...     (any order, any precision, row by row)
 *   packed:     embed | layer 0: q k v o gate up down | layer 1: q k v ...
 *
 * Matrices are stored as tiles of 16 rows, the unit that is handed to workers; vectors as they are, in float32. Since a
 * worker's share of a stage is a run of tiles, the file serves any number of workers (docs/adr/0004).
 */
import { packedBytes } from '../ir/packed-layout.js';
import type { Argument, Loop, Name, Placement, Program, Region, Value } from '../ir/program.js';
import { usesOf } from '../ir/visit.js';
import { assert, defined } from '../util/assert.js';
import { formatBytes } from '../util/units.js';
import type { PassResult } from './pass.js';
import { namesOf } from './value-uses.js';

/** Placements start on cache lines. */
const alignment = 64;

export function packWeights(program: Program): PassResult {
  const values = new Map(program.values.map((value) => [value.name, value]));
  const placements = new Map<Name, Placement>();
  let end = 0;
  for (const name of weightsInOrder(program, values)) {
    const { tensor } = values.get(name)!;
    const bytes = packedBytes(tensor);
    assert(bytes !== undefined, `${name} is a vector or a matrix of less than 2^53 bytes`);
    placements.set(name, { offset: end, bytes, form: tensor.shape.length === 2 ? 'tiles' : 'rows' });
    end = Math.ceil((end + bytes) / alignment) * alignment;
    assert(Number.isSafeInteger(end), 'packed weights exceed 2^53 bytes');
  }
  const placed = program.values.map((value): Value => {
    const placement = placements.get(value.name);
    if (value.origin.kind !== 'checkpoint' || placement === undefined) return value;
    return { ...value, origin: { ...value.origin, placement } };
  });
  const notes = [`${placements.size} weights in ${formatBytes(end)}, in the order of their use`];
  return { program: { ...program, values: placed }, report: { pass: 'packWeights', notes, refusals: [] } };
}

/** Checkpoint values in the order in which the calls, and the loops inside them, read them first. */
function weightsInOrder(program: Program, values: ReadonlyMap<Name, Value>): Name[] {
  const ordered = new Set<Name>();
  const kernels = new Map(program.kernels.map((kernel) => [kernel.name, kernel]));
  for (const call of program.calls) {
    const kernel = defined(kernels.get(call.kernel), `kernel ${call.kernel}`);
    const scope = new Map(kernel.params.map(({ name }, at) => [name, defined(call.args[at], `argument ${name}`)]));
    for (const name of readsInOrder(kernel.body, scope)) {
      if (values.get(name)?.origin.kind === 'checkpoint') ordered.add(name);
    }
  }
  return [...ordered];
}

type Scope = ReadonlyMap<Name, Argument>;

/** Values of the program that a region reads, in order. @param scope what its names stand for, where that is a value */
function* readsInOrder(region: Region, scope: Scope): Generator<Name> {
  for (const statement of region.statements) {
    if (statement.kind === 'loop') {
      // Without stacks every iteration reads the same values.
      const iterations = statement.bindings.some(({ kind }) => kind === 'stacked') ? statement.trip : 1;
      for (let i = 0; i < iterations; i++) yield* readsInOrder(statement.body, iterationScope(statement, scope, i));
    } else {
      for (const { name, access } of usesOf(statement)) {
        const argument = access === 'read' ? scope.get(name) : undefined;
        if (argument !== undefined) yield* namesOf(argument);
      }
    }
  }
}

/** What the names in a loop body stand for in one iteration, where that is a value of the program or a stack of them. */
export function iterationScope(loop: Loop, outer: Scope, iteration: number): Scope {
  const scope = new Map<Name, Argument>();
  for (const binding of loop.bindings) {
    const argument = outer.get(binding.outer);
    if (argument === undefined) continue;
    if (binding.kind === 'invariant') scope.set(binding.name, argument);
    if (binding.kind === 'stacked' && argument.kind === 'stack') {
      const value = defined(argument.values[iteration], `member ${iteration} of ${binding.outer}`);
      scope.set(binding.name, { kind: 'value', value });
    }
  }
  return scope;
}

/** Length of the packed file. */
export function packedLength(program: Program): number {
  return program.values.reduce((end, { origin }) => {
    if (origin.kind !== 'checkpoint' || origin.placement === undefined) return end;
    return Math.max(end, origin.placement.offset + origin.placement.bytes);
  }, 0);
}
