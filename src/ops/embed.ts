/** embed: y[rows, hidden] = table[tokens] * scale; of the table only the rows that are asked for cross the memory. */
import { bytesOf, elementsOf, tensorBytes } from '../ir/tensor.js';
import { assert } from '../util/assert.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, expect, expectIndices, fixedDim, floats, ints, leading } from './shared.js';

export const embed: OperatorDefinition<'embed'> = {
  kind: 'embed',
  reads: ['tokens', 'table'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: { scale: 'number' },
  split: { kind: 'features', whole: ['tokens'] },

  infer({ reads, writes }, typeOf) {
    const tokens = typeOf(reads.tokens);
    const table = typeOf(reads.table);
    expectIndices('embed: tokens', tokens, [leading(tokens)]);
    expect(table.shape.length === 2 && table.dtype !== 'i32', 'embed: table must be [vocab, hidden]');
    fixedDim('embed: vocab', table.shape[0]);
    return { [writes.y]: activation([leading(tokens), fixedDim('embed: hidden', table.shape[1])]) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    const elements = elementsOf(y, at);
    return {
      flops: elements,
      weightBytes: bytesOf(typeOf(reads.table).dtype, elements),
      stateBytes: 0,
      activationBytes: tensorBytes(typeOf(reads.tokens), at) + tensorBytes(y, at),
    };
  },

  evaluate: perSocket(({ reads, writes, attributes }, operand) => {
    const tokens = ints(operand(reads.tokens));
    const table = floats(operand(reads.table));
    const [vocab, hidden] = operand(reads.table).shape as [number, number];
    const y = floats(operand(writes.y));
    tokens.forEach((token, row) => {
      assert(token >= 0 && token < vocab, `embed: token ${token} of a vocabulary of ${vocab}`);
      for (let i = 0; i < hidden; i++) y[row * hidden + i] = table[token * hidden + i]! * attributes.scale;
    });
  }),
};
