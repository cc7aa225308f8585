/**
 * rmsNorm: y = x / sqrt(mean(x^2) + eps) * (weight + offset), over groups of weight's length along the last dimension:
 * one group is the norm of a row, several are a norm per head (Qwen3). offset is 1 for Gemma.
 */
import { elementsOf, tensorBytes } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, activationCost, expect, expectMatrix, fixedDim, floats } from './shared.js';

export const rmsNorm: OperatorDefinition<'rmsNorm'> = {
  kind: 'rmsNorm',
  reads: ['x', 'weight'],
  optionalReads: [],
  updates: [],
  writes: ['y'],
  attributes: { eps: 'number', offset: 'number' },
  split: { kind: 'replicated' },

  infer({ reads, writes }, typeOf) {
    const x = typeOf(reads.x);
    const weight = typeOf(reads.weight);
    expectMatrix('rmsNorm: x', x);
    expect(weight.shape.length === 1 && weight.dtype !== 'i32', 'rmsNorm: weight must have one dimension');
    const group = fixedDim('rmsNorm: weight', weight.shape[0]);
    const width = fixedDim('rmsNorm: x', x.shape[1]);
    expect(group > 0 && width % group === 0, `rmsNorm: groups of ${group} do not divide ${width} features`);
    return { [writes.y]: activation(x.shape) };
  },

  cost({ reads, writes }, typeOf, at) {
    const y = typeOf(writes.y);
    // Square, add, scale, weigh.
    const cost = activationCost(4 * elementsOf(y, at), [typeOf(reads.x), y], at);
    return { ...cost, weightBytes: tensorBytes(typeOf(reads.weight), at) };
  },

  evaluate: perSocket(({ reads, writes, attributes }, operand) => {
    const x = floats(operand(reads.x));
    const weight = floats(operand(reads.weight));
    const y = floats(operand(writes.y));
    const group = weight.length;
    for (let start = 0; start < x.length; start += group) {
      let squares = 0;
      for (let i = start; i < start + group; i++) squares += x[i]! * x[i]!;
      const scale = 1 / Math.sqrt(squares / group + attributes.eps);
      for (let i = 0; i < group; i++) y[start + i] = x[start + i]! * scale * (weight[i]! + attributes.offset);
    }
  }),
};
