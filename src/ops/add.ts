/** add: y = a + b: the residual. */
import { elementsOf } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activationCost, expectSame, floats } from './shared.js';

export const add: OperatorDefinition<'add'> = {
  kind: 'add',
  reads: ['a', 'b'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: {},
  split: { kind: 'features', whole: [] },

  infer({ reads, writes }, typeOf) {
    return { [writes.y]: expectSame('add', typeOf(reads.a), typeOf(reads.b)) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    return activationCost(1 * elementsOf(y, at), [typeOf(reads.a), typeOf(reads.b), y], at);
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const a = floats(operand(reads.a));
    const b = floats(operand(reads.b));
    const y = floats(operand(writes.y));
    for (let i = 0; i < y.length; i++) y[i] = a[i]! + b[i]!;
  }),
};
