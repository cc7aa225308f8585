/**
 * attention: causal softmax attention of each row over the positions of its own slot, up to and including its own. Query
 * heads share key/value heads in equal groups. Gemma 2 caps the scores; a window limits how far back a row looks.
 */
import { bytesOf, concreteDim } from '../ir/tensor.js';
import { expectCache } from './append-kv.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, activationCost, expect, expectIndices, expectMatrix, floats, ints, leading } from './shared.js';

export const attention: OperatorDefinition<'attention'> = {
  kind: 'attention',
  reads: ['q', 'keys', 'values', 'slots', 'positions'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: { heads: 'number', scale: 'number', softcap: 'number', window: 'number' },
  split: { kind: 'heads' },

  infer({ reads, writes, attributes }, typeOf) {
    const q = typeOf(reads.q);
    const rows = leading(q);
    const { heads } = attributes;
    expectMatrix('attention: q', q);
    expectIndices('attention: slots', typeOf(reads.slots), [rows]);
    expectIndices('attention: positions', typeOf(reads.positions), [rows]);
    const [, kvHeads, , headDim] = expectCache('attention', typeOf(reads.keys), typeOf(reads.values));
    expect(q.shape[1] === heads * headDim, `attention: q is not ${heads} heads of ${headDim}`);
    expect(heads % kvHeads === 0, `attention: ${heads} heads cannot share ${kvHeads} key/value heads`);
    return { [writes.y]: activation(q.shape) };
  },

  cost({ reads, writes, attributes }, typeOf, at) {
    const q = typeOf(reads.q);
    const keys = typeOf(reads.keys);
    const [slots, kvHeads, , headDim] = keys.shape as readonly [number, number, number, number];
    const rows = concreteDim(leading(q), at);
    const positions = attributes.window > 0 ? Math.min(at.context, attributes.window) : at.context;
    // Rows of one sequence can share what they read, so that its cache crosses the memory once.
    const cached = 2 * Math.min(rows, at.sequences ?? slots) * kvHeads * positions * headDim;
    // Two products of a query with every position: scores, and the weighted sum of values.
    const flops = 4 * rows * attributes.heads * positions * headDim;
    return { ...activationCost(flops, [q, typeOf(writes.y)], at), stateBytes: bytesOf(keys.dtype, cached) };
  },

  evaluate: perSocket(({ reads, writes, attributes }, operand) => {
    const { heads, window } = attributes;
    const q = floats(operand(reads.q));
    const keys = floats(operand(reads.keys));
    const values = floats(operand(reads.values));
    const slots = ints(operand(reads.slots));
    const positions = ints(operand(reads.positions));
    const y = floats(operand(writes.y)).fill(0);
    const [, kvHeads, context, headDim] = operand(reads.keys).shape as [number, number, number, number];
    positions.forEach((position, row) => {
      if (position < 0) return;
      const first = window > 0 ? Math.max(0, position - window + 1) : 0;
      for (let head = 0; head < heads; head++) {
        const kvHead = Math.floor(head / (heads / kvHeads));
        const start = (slots[row]! * kvHeads + kvHead) * context + first;
        const end = start + position - first + 1;
        const at = (row * heads + head) * headDim;
        const query = q.subarray(at, at + headDim);
        const weights = softmax(scores(query, keys.subarray(start * headDim, end * headDim), attributes));
        mix(weights, values.subarray(start * headDim, end * headDim), y.subarray(at, at + headDim));
      }
    });
  }),
};

function scores(query: Float32Array, keys: Float32Array, { scale, softcap }: { scale: number; softcap: number }) {
  const result = new Float64Array(keys.length / query.length);
  for (let position = 0; position < result.length; position++) {
    let dot = 0;
    for (let i = 0; i < query.length; i++) dot += query[i]! * keys[position * query.length + i]!;
    result[position] = softcap > 0 ? softcap * Math.tanh((dot * scale) / softcap) : dot * scale;
  }
  return result;
}

function softmax(scores: Float64Array): Float64Array {
  const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const exps = scores.map((score) => Math.exp(score - max));
  const total = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / total);
}

/** y[i] = sum over positions of weights[position] * values[position, i]. */
function mix(weights: Float64Array, values: Float32Array, y: Float32Array): void {
  for (let i = 0; i < y.length; i++) {
    let sum = 0;
    for (let position = 0; position < weights.length; position++) {
      sum += weights[position]! * values[position * y.length + i]!;
    }
    y[i] = sum;
  }
}
