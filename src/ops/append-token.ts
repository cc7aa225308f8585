/** appendToken: history[slot, position] = token, so that sampling can see what a sequence already holds. */
import { tensorBytes } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activationCost, expectIndices, fixedDim, ints, leading } from './shared.js';

export const appendToken: OperatorDefinition<'appendToken'> = {
  kind: 'appendToken',
  reads: ['tokens', 'slots', 'positions'],
  optionalReads: [],
  updates: ['history'],
  writes: [],
  attributes: {},
  split: { kind: 'single' },

  infer({ reads, updates }, typeOf) {
    const rows = leading(typeOf(reads.tokens));
    expectIndices('appendToken: tokens', typeOf(reads.tokens), [rows]);
    expectIndices('appendToken: slots', typeOf(reads.slots), [rows]);
    expectIndices('appendToken: positions', typeOf(reads.positions), [rows]);
    const history = typeOf(updates.history);
    const slots = fixedDim('appendToken: slots of history', history.shape[0]);
    expectIndices('appendToken: history', history, [slots, fixedDim('appendToken: context', history.shape[1])]);
    return {};
  },

  cost({ reads }, typeOf, at) {
    const tokens = typeOf(reads.tokens);
    const touched = [tokens, typeOf(reads.slots), typeOf(reads.positions)];
    return { ...activationCost(0, touched, at), stateBytes: tensorBytes(tokens, at) };
  },

  evaluate: perSocket(({ reads, updates }, operand) => {
    const tokens = ints(operand(reads.tokens));
    const slots = ints(operand(reads.slots));
    const positions = ints(operand(reads.positions));
    const history = ints(operand(updates.history));
    const context = operand(updates.history).shape[1]!;
    tokens.forEach((token, row) => {
      const position = positions[row]!;
      if (position >= 0) history[slots[row]! * context + position] = token;
    });
  }),
};
