/** allReduce: every socket gets the sum over all sockets, added in the order of the sockets in float64. */
import { elementsOf } from '../ir/tensor.js';
import type { OperatorDefinition } from './definition.js';
import { activation, activationCost, expect, expectMatrix, floats } from './shared.js';

export const allReduce: OperatorDefinition<'allReduce'> = {
  kind: 'allReduce',
  reads: ['x'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: { sockets: 'number' },
  split: { kind: 'sockets' },

  infer({ reads, writes, attributes }, typeOf) {
    const x = typeOf(reads.x);
    expectMatrix('allReduce: x', x);
    expect(attributes.sockets >= 1, `allReduce: over ${attributes.sockets} sockets`);
    return { [writes.y]: activation(x.shape) };
  },

  cost({ reads, writes, attributes }, typeOf, at) {
    const y = typeOf(writes.y);
    return activationCost((attributes.sockets - 1) * elementsOf(y, at), [typeOf(reads.x), y], at);
  },

  evaluate({ reads, writes }, sockets) {
    const parts = sockets.map((operand) => floats(operand(reads.x)));
    const sums = new Float64Array(parts[0]!.length);
    for (const part of parts) part.forEach((value, i) => (sums[i]! += value));
    for (const operand of sockets) floats(operand(writes.y)).set(sums);
  },
};
