/** siluMul: y = silu(gate) * up, silu(x) = x / (1 + exp(-x)): the SwiGLU of the Llama family. */
import { elementsOf } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activationCost, expectSame, floats } from './shared.js';

export const siluMul: OperatorDefinition<'siluMul'> = {
  kind: 'siluMul',
  reads: ['gate', 'up'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: {},
  split: { kind: 'features', whole: [] },

  infer({ reads, writes }, typeOf) {
    return { [writes.y]: expectSame('siluMul', typeOf(reads.gate), typeOf(reads.up)) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    return activationCost(4 * elementsOf(y, at), [typeOf(reads.gate), typeOf(reads.up), y], at);
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const gate = floats(operand(reads.gate));
    const up = floats(operand(reads.up));
    const y = floats(operand(writes.y));
    for (let i = 0; i < y.length; i++) y[i] = (gate[i]! / (1 + Math.exp(-gate[i]!))) * up[i]!;
  }),
};
