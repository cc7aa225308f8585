/** linear: y[rows, out] = x[rows, in] . weight[out, in] (+ bias[out]); the operator that reads nearly all of a token's bytes. */
import { tensorBytes } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activation, expect, floats, leading, lastDim } from './shared.js';

export const linear: OperatorDefinition<'linear'> = {
  kind: 'linear',
  reads: ['x', 'weight'],
  optionalReads: ['bias'],
  updates: [],
  writes: ['y'],
  attributes: {},
  split: { kind: 'features', whole: ['x'] },

  infer({ reads, writes }, typeOf) {
    const x = typeOf(reads.x);
    const weight = typeOf(reads.weight);
    const [out, width] = weight.shape;
    expect(weight.shape.length === 2 && typeof out === 'number', 'linear: weight must be [out, in]');
    expect(x.shape.length === 2 && x.dtype === 'f32', 'linear: x must be f32[rows, in]');
    expect(width === lastDim(x), `linear: weight reads ${width} features, x has ${lastDim(x)}`);
    if (reads.bias !== undefined) {
      const bias = typeOf(reads.bias);
      expect(bias.shape.length === 1 && bias.shape[0] === out, 'linear: bias must be [out]');
    }
    return { [writes.y]: activation([leading(x), out]) };
  },

  cost({ reads, writes }, typeOf, at) {
    const weight = typeOf(reads.weight);
    const [out, width] = weight.shape as readonly number[];
    const rows = leading(typeOf(reads.x)) === 'samples' ? at.samples : at.rows;
    return {
      flops: 2 * rows * out! * width!,
      weightBytes: tensorBytes(weight, at) + (reads.bias === undefined ? 0 : tensorBytes(typeOf(reads.bias), at)),
      stateBytes: 0,
      activationBytes: tensorBytes(typeOf(reads.x), at) + tensorBytes(typeOf(writes.y), at),
    };
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const x = floats(operand(reads.x));
    const weight = floats(operand(reads.weight));
    const bias = reads.bias === undefined ? undefined : floats(operand(reads.bias));
    const y = floats(operand(writes.y));
    const [rows, out] = operand(writes.y).shape as [number, number];
    const width = operand(reads.x).shape[1]!;
    for (let row = 0; row < rows; row++) {
      for (let feature = 0; feature < out; feature++) {
        let sum = bias?.[feature] ?? 0;
        for (let i = 0; i < width; i++) sum += x[row * width + i]! * weight[feature * width + i]!;
        y[row * out + feature] = sum;
      }
    }
  }),
};
