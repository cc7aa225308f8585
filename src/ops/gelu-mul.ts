/** geluMul: y = gelu(gate) * up, in the tanh form (`gelu_pytorch_tanh`): the GeGLU of Gemma. */
import { elementsOf } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activationCost, expectSame, floats } from './shared.js';

export const geluMul: OperatorDefinition<'geluMul'> = {
  kind: 'geluMul',
  reads: ['gate', 'up'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: {},
  split: { kind: 'features', whole: [] },

  infer({ reads, writes }, typeOf) {
    return { [writes.y]: expectSame('geluMul', typeOf(reads.gate), typeOf(reads.up)) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    return activationCost(9 * elementsOf(y, at), [typeOf(reads.gate), typeOf(reads.up), y], at);
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const gate = floats(operand(reads.gate));
    const up = floats(operand(reads.up));
    const y = floats(operand(writes.y));
    const factor = Math.sqrt(2 / Math.PI);
    for (let i = 0; i < y.length; i++) {
      const x = gate[i]!;
      y[i] = 0.5 * x * (1 + Math.tanh(factor * (x + 0.044715 * x * x * x))) * up[i]!;
    }
  }),
};
