/** gatherRows: y[samples, n] = x[index[samples], n]: the rows whose next token is wanted. */
import { assert } from '../util/assert.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, activationCost, expectIndices, expectMatrix, floats, ints, lastDim, leading } from './shared.js';

export const gatherRows: OperatorDefinition<'gatherRows'> = {
  kind: 'gatherRows',
  reads: ['x', 'index'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: {},
  split: { kind: 'replicated' },

  infer({ reads, writes }, typeOf) {
    const x = typeOf(reads.x);
    const index = typeOf(reads.index);
    expectMatrix('gatherRows: x', x);
    expectIndices('gatherRows: index', index, [leading(index)]);
    return { [writes.y]: activation([leading(index), lastDim(x)]) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    // As many rows are read as are written.
    return activationCost(0, [y, typeOf(reads.index), y], at);
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const [rows, width] = operand(reads.x).shape as [number, number];
    const x = floats(operand(reads.x));
    const y = floats(operand(writes.y));
    ints(operand(reads.index)).forEach((row, sample) => {
      assert(row >= 0 && row < rows, `gatherRows: row ${row} of ${rows}`);
      y.set(x.subarray(row * width, (row + 1) * width), sample * width);
    });
  }),
};
