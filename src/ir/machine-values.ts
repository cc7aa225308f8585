/** What names hold while a program is interpreted: operands, stacks of operands, states, shards of weights. */
import type { Operand } from '../ops/definition.js';
import { assert, defined } from '../util/assert.js';
import type { Name, Shard, Tensor, Value } from './program.js';
import { concreteShape, elementsOf, type Extents } from './tensor.js';

/** An operand, or a stack of separate ones (the values of a stacked argument), which has a leading dimension. */
export type Slot = Operand | readonly Operand[];

/** A zero tensor. */
export function allocate(tensor: Tensor, extents: Extents): Operand {
  const length = elementsOf(tensor, extents);
  const data = tensor.dtype === 'i32' ? new Int32Array(length) : new Float32Array(length);
  return { dtype: tensor.dtype, shape: concreteShape(tensor.shape, extents), data };
}

/** Data that comes from outside, as it is; its kind and length must be those of the tensor. */
export function asOperand(tensor: Tensor, extents: Extents, data: Float32Array | Int32Array): Operand {
  const fits = data instanceof Int32Array === (tensor.dtype === 'i32') && data.length === elementsOf(tensor, extents);
  assert(fits, `${data.length} elements of the right kind for ${tensor.dtype}[${tensor.shape.join(', ')}]`);
  return { dtype: tensor.dtype, shape: concreteShape(tensor.shape, extents), data };
}

/** Slice `index` of the leading dimension; shares its data with the slot. */
export function sliceOf(slot: Slot, index: number): Slot {
  if (!('data' in slot)) return defined(slot[index], `slice ${index}`);
  const shape = slot.shape.slice(1);
  const length = shape.reduce((product, dim) => product * dim, 1);
  return { dtype: slot.dtype, shape, data: slot.data.subarray(index * length, (index + 1) * length) };
}

/** States by name, zero at first. Programs that share a store continue each other's sequences. */
export interface StateStore {
  /** The state on every socket. */
  get(value: Value, sockets: number): readonly Operand[];
  /** Makes all states zero again. */
  clear(): void;
}

export function createStateStore(): StateStore {
  const states = new Map<Name, readonly Operand[]>();
  return {
    get: (value, sockets) => {
      const known = states.get(value.name);
      const fresh = known ?? Array.from({ length: sockets }, () => allocate(value.tensor, { rows: 0, samples: 0 }));
      const same = fresh.length === sockets && fresh.every(({ shape }) => shape.join() === value.tensor.shape.join());
      assert(same, `state ${value.name} is shared by programs that differ in its type`);
      states.set(value.name, fresh);
      return fresh;
    },
    clear: () => states.clear(),
  };
}

/**
 * The part of a whole tensor that a socket holds.
 * @param full elements of the whole tensor in row-major order
 * @param shape of the whole tensor
 */
export function sliceShard(full: Float32Array, shape: readonly number[], shard: Shard, socket: number): Float32Array {
  const part = Math.floor(socket / shard.replicas);
  const size = shape[shard.axis]! / shard.parts;
  assert(Number.isInteger(size), `${shard.parts} equal parts of ${shape[shard.axis]!}`);
  const inner = shape.slice(shard.axis + 1).reduce((product, dim) => product * dim, 1);
  const outer = shape.slice(0, shard.axis).reduce((product, dim) => product * dim, 1);
  const result = new Float32Array(outer * size * inner);
  for (let i = 0; i < outer; i++) {
    const from = (i * shard.parts + part) * size * inner;
    result.set(full.subarray(from, from + size * inner), i * size * inner);
  }
  return result;
}
