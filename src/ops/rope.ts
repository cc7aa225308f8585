/**
 * rope: rotary position embedding (Su et al., arXiv 2104.09864). In every head the pair (a, b) becomes
 * (a cos - b sin, a sin + b cos); elements beyond the 2n rotated ones pass through.
 */
import { elementsOf } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, activationCost, expect, expectMatrix, fixedDim, floats, leading } from './shared.js';

export const rope: OperatorDefinition<'rope'> = {
  kind: 'rope',
  reads: ['x', 'table'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: { headDim: 'number', pairing: 'string' },
  split: { kind: 'heads' },

  infer({ reads, writes, attributes }, typeOf) {
    const x = typeOf(reads.x);
    const table = typeOf(reads.table);
    expectMatrix('rope: x', x);
    expectMatrix('rope: table', table);
    expect(leading(x) === leading(table), 'rope: x and table have different rows');
    const width = fixedDim('rope: x', x.shape[1]);
    const rotated = fixedDim('rope: table', table.shape[1]);
    const { headDim, pairing } = attributes;
    expect(headDim > 0 && width % headDim === 0, `rope: heads of ${headDim} do not divide ${width} features`);
    expect(rotated % 2 === 0 && rotated <= headDim, `rope: a table of ${rotated} does not fit heads of ${headDim}`);
    // Text forms of programs come from outside, where the type does not hold.
    expect(['halves', 'adjacent'].includes(pairing), `rope: unknown pairing ${pairing}`);
    return { [writes.y]: activation(x.shape) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    return activationCost(3 * elementsOf(y, at), [typeOf(reads.x), typeOf(reads.table), y], at);
  },

  evaluate: perSocket(({ reads, writes, attributes }, operand) => {
    const x = floats(operand(reads.x));
    const table = floats(operand(reads.table)); // (rows, 2 * pairs)
    const y = floats(operand(writes.y));
    const [rows, width] = operand(reads.x).shape as [number, number];
    const pairs = operand(reads.table).shape[1]! / 2;
    const [step, distance] = attributes.pairing === 'halves' ? [1, pairs] : [2, 1];
    y.set(x);
    for (let row = 0; row < rows; row++) {
      for (let head = row * width; head < (row + 1) * width; head += attributes.headDim) {
        for (let i = 0; i < pairs; i++) {
          const cos = table[row * 2 * pairs + i]!;
          const sin = table[row * 2 * pairs + pairs + i]!;
          const a = x[head + i * step]!;
          const b = x[head + i * step + distance]!;
          y[head + i * step] = a * cos - b * sin;
          y[head + i * step + distance] = a * sin + b * cos;
        }
      }
    }
  }),
};
