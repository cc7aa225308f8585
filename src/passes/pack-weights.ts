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
import type { Name, Placement, Program, Tensor, Value } from '../ir/program.js';
import { bytesOf } from '../ir/tensor.js';
import { assert } from '../util/assert.js';
import { checkedProduct } from '../util/checked.js';
import { formatBytes } from '../util/units.js';
import type { PassResult } from './pass.js';
import { featureUnit } from './plan-stages.js';

/** Placements start on cache lines. */
const alignment = 64;

export function packWeights(program: Program): PassResult {
  const values = new Map(program.values.map((value) => [value.name, value]));
  const placements = new Map<Name, Placement>();
  let end = 0;
  for (const name of weightsInOrder(program, values)) {
    const { tensor } = values.get(name)!;
    const bytes = packedBytes(tensor);
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

/** Checkpoint values in the order of first use; of stacks, all first members' layer before the second's. */
function weightsInOrder(program: Program, values: ReadonlyMap<Name, Value>): Name[] {
  const ordered = new Set<Name>();
  const use = (name: Name | undefined): void => {
    if (name !== undefined && values.get(name)?.origin.kind === 'checkpoint') ordered.add(name);
  };
  for (const call of program.calls) {
    const depth = Math.max(0, ...call.args.map((arg) => (arg.kind === 'stack' ? arg.values.length : 0)));
    for (const arg of call.args) if (arg.kind === 'value') use(arg.value);
    for (let layer = 0; layer < depth; layer++) {
      for (const arg of call.args) if (arg.kind === 'stack') use(arg.values[layer]);
    }
  }
  return [...ordered];
}

/** Bytes of a weight in the packed file: matrices are padded to whole tiles of 16 rows. */
export function packedBytes(tensor: Tensor): number {
  const dims = tensor.shape.map((dim) => {
    assert(typeof dim === 'number', 'a weight has fixed dimensions');
    return dim;
  });
  const [rows, ...rest] = dims;
  if (rest.length === 0) return bytesOf(tensor.dtype, rows!);
  const paddedRows = Math.ceil(rows! / featureUnit) * featureUnit;
  const elements = checkedProduct([paddedRows, ...rest]);
  assert(elements !== undefined, 'a matrix of more than 2^53 elements');
  return bytesOf(tensor.dtype, elements);
}

/** Length of the packed file. */
export function packedLength(program: Program): number {
  return program.values.reduce((end, { origin }) => {
    if (origin.kind !== 'checkpoint' || origin.placement === undefined) return end;
    return Math.max(end, origin.placement.offset + origin.placement.bytes);
  }, 0);
}
