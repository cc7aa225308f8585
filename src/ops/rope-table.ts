/** ropeTable: cos, then sin, of position * frequencies[n], once per token instead of once per layer and head. */
import { elementsOf, tensorBytes } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, activationCost, expect, expectIndices, fixedDim, floats, ints, leading } from './shared.js';

export const ropeTable: OperatorDefinition<'ropeTable'> = {
  kind: 'ropeTable',
  reads: ['positions', 'frequencies'],
  optionalReads: [],
  updates: [],
  writes: ['table'],
  attributes: {},
  split: { kind: 'replicated' },

  infer({ reads, writes }, typeOf) {
    const positions = typeOf(reads.positions);
    const frequencies = typeOf(reads.frequencies);
    expectIndices('ropeTable: positions', positions, [leading(positions)]);
    expect(frequencies.dtype === 'f32' && frequencies.shape.length === 1, 'ropeTable: frequencies must be f32[n]');
    const pairs = fixedDim('ropeTable: frequencies', frequencies.shape[0]);
    return { [writes.table]: activation([leading(positions), 2 * pairs]) };
  },

  cost({ reads, writes }, typeOf, at) {
    const table = typeOf(writes.table);
    const cost = activationCost(elementsOf(table, at), [typeOf(reads.positions), table], at);
    return { ...cost, weightBytes: tensorBytes(typeOf(reads.frequencies), at) };
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const positions = ints(operand(reads.positions));
    const frequencies = floats(operand(reads.frequencies));
    const table = floats(operand(writes.table)); // (rows, 2 * pairs)
    const pairs = frequencies.length;
    positions.forEach((position, row) => {
      for (let i = 0; i < pairs; i++) {
        const angle = position * frequencies[i]!;
        table[row * 2 * pairs + i] = position < 0 ? 0 : Math.cos(angle);
        table[row * 2 * pairs + pairs + i] = position < 0 ? 0 : Math.sin(angle);
      }
    });
  }),
};
