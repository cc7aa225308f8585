/** allGather: every socket gets the parts of all sockets, one after the other along the last dimension. */
import type { OperatorDefinition } from './definition.js';
import { activation, activationCost, expect, expectMatrix, fixedDim, floats, leading } from './shared.js';

export const allGather: OperatorDefinition<'allGather'> = {
  kind: 'allGather',
  reads: ['x'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: { sockets: 'number' },
  split: { kind: 'sockets' },

  infer({ reads, writes, attributes }, typeOf) {
    const x = typeOf(reads.x);
    expectMatrix('allGather: x', x);
    expect(attributes.sockets >= 1, `allGather: over ${attributes.sockets} sockets`);
    const width = fixedDim('allGather: x', x.shape[1]);
    return { [writes.y]: activation([leading(x), width * attributes.sockets]) };
  },

  cost({ reads, writes }, typeOf, at) {
    return activationCost(0, [typeOf(reads.x), typeOf(writes.y)], at);
  },

  evaluate({ reads, writes }, sockets) {
    const [rows, width] = sockets[0]!(reads.x).shape as [number, number];
    const parts = sockets.map((operand) => floats(operand(reads.x)));
    for (const operand of sockets) {
      const y = floats(operand(writes.y)); // (rows, sockets * width)
      parts.forEach((part, socket) => {
        for (let row = 0; row < rows; row++) {
          y.set(part.subarray(row * width, (row + 1) * width), (row * parts.length + socket) * width);
        }
      });
    }
  },
};
