/** softcap: y = cap * tanh(x / cap), which keeps logits within (-cap, cap): Gemma 2. */
import { elementsOf } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, activationCost, expect, expectMatrix, floats } from './shared.js';

export const softcap: OperatorDefinition<'softcap'> = {
  kind: 'softcap',
  reads: ['x'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: { cap: 'number' },
  split: { kind: 'features', whole: [] },

  infer({ reads, writes, attributes }, typeOf) {
    const x = typeOf(reads.x);
    expectMatrix('softcap: x', x);
    expect(attributes.cap > 0, `softcap: cap must be positive, is ${attributes.cap}`);
    return { [writes.y]: activation(x.shape) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    return activationCost(3 * elementsOf(y, at), [typeOf(reads.x), y], at);
  },

  evaluate: perSocket(({ reads, writes, attributes: { cap } }, operand) => {
    const x = floats(operand(reads.x));
    const y = floats(operand(writes.y));
    for (let i = 0; i < y.length; i++) y[i] = cap * Math.tanh(x[i]! / cap);
  }),
};
