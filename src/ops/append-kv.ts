/**
 * appendKv: stores the keys and values of every row at its slot and position, keys[slot, head, position, :], rounded to
 * the format of the cache.
 */
import { blockOf } from '../ir/formats.js';
import { tensorBytes } from '../ir/tensor.js';
import type { DType, Tensor } from '../ir/program.js';
import { bf16ToF32Array, f16ToF32Array, f32ToBf16Array, f32ToF16Array } from '../util/float.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import {
  activationCost,
  expect,
  expectIndices,
  expectMatrix,
  expectSame,
  fixedDim,
  floats,
  ints,
  leading,
} from './shared.js';

export const appendKv: OperatorDefinition<'appendKv'> = {
  kind: 'appendKv',
  reads: ['k', 'v', 'slots', 'positions'],
  optionalReads: [],
  updates: ['keys', 'values'],
  writes: [],
  attributes: {},
  split: { kind: 'heads' },

  infer({ reads, updates }, typeOf) {
    const k = typeOf(reads.k);
    const rows = leading(k);
    expectSame('appendKv', k, typeOf(reads.v));
    expectIndices('appendKv: slots', typeOf(reads.slots), [rows]);
    expectIndices('appendKv: positions', typeOf(reads.positions), [rows]);
    const [, heads, , headDim] = expectCache('appendKv', typeOf(updates.keys), typeOf(updates.values));
    expectMatrix('appendKv: k', k);
    expect(k.shape[1] === heads * headDim, `appendKv: ${String(k.shape[1])} features for ${heads} heads of ${headDim}`);
    return {};
  },

  cost({ reads, updates }, typeOf, at) {
    const { k, v, slots, positions } = reads;
    const cost = activationCost(0, [k, v, slots, positions].map(typeOf), at);
    const stored = { ...typeOf(k), dtype: typeOf(updates.keys).dtype };
    return { ...cost, stateBytes: 2 * tensorBytes(stored, at) };
  },

  evaluate: perSocket(({ reads, updates }, operand) => {
    const slots = ints(operand(reads.slots));
    const positions = ints(operand(reads.positions));
    for (const [read, update] of [
      [reads.k, updates.keys],
      [reads.v, updates.values],
    ] as const) {
      const { dtype, shape, data } = operand(update);
      const [, heads, context, headDim] = shape as [number, number, number, number];
      const source = rounded(floats(operand(read)), dtype); // (rows, heads, headDim)
      positions.forEach((position, row) => {
        if (position < 0) return;
        for (let head = 0; head < heads; head++) {
          const from = (row * heads + head) * headDim;
          const to = ((slots[row]! * heads + head) * context + position) * headDim;
          data.set(source.subarray(from, from + headDim), to);
        }
      });
    }
  }),
};

/** The four sizes of a KV cache. @throws TypeMismatch unless both are [slots, kvHeads, context, headDim] of one format. */
export function expectCache(what: string, keys: Tensor, values: Tensor): [number, number, number, number] {
  expect(keys.shape.length === 4, `${what}: keys must be [slots, kvHeads, context, headDim]`);
  expect(['f32', 'bf16', 'f16', 'q8_0'].includes(keys.dtype), `${what}: keys cannot be ${keys.dtype}`);
  const { elements } = blockOf(keys.dtype);
  const headDim = fixedDim(`${what}: keys`, keys.shape[3]);
  expect(headDim % elements === 0, `${what}: heads of ${headDim} are no whole blocks of ${elements} in ${keys.dtype}`);
  const equal = keys.dtype === values.dtype && keys.shape.join() === values.shape.join();
  expect(equal, `${what}: keys and values have different types`);
  return keys.shape.map((dim) => fixedDim(`${what}: keys`, dim)) as [number, number, number, number];
}

/** The values as the format can hold them. */
function rounded(values: Float32Array, dtype: DType): Float32Array {
  switch (dtype) {
    case 'bf16':
      return bf16ToF32Array(f32ToBf16Array(values));
    case 'f16':
      return f16ToF32Array(f32ToF16Array(values));
    case 'q8_0':
      return roundedToQ8(values);
    default:
      return values;
  }
}

/** Blocks of a binary16 scale and int8, as GGUF has them: rounded to nearest, ties away from zero. */
function roundedToQ8(values: Float32Array): Float32Array {
  const { elements } = blockOf('q8_0');
  const scales = Float32Array.from({ length: values.length / elements }, (_, block) => {
    const magnitudes = values.subarray(block * elements, (block + 1) * elements).map(Math.abs);
    return magnitudes.reduce((largest, magnitude) => Math.max(largest, magnitude), 0) / 127;
  });
  const stored = f16ToF32Array(f32ToF16Array(scales));
  return values.map((value, i) => {
    const block = Math.floor(i / elements);
    const inverse = scales[block] === 0 ? 0 : Math.fround(1 / scales[block]!);
    const q = Math.fround(value * inverse);
    return stored[block]! * Math.trunc(q < 0 ? q - 0.5 : q + 0.5);
  });
}
