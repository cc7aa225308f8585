/** Small helpers of the operator files: checks of operand types, and access to run-time data. */
import type { Dim, Tensor } from '../ir/program.js';
import { TypeMismatch, type Operand } from './definition.js';

export function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new TypeMismatch(message);
}

/** An f32 activation of this shape: what nearly every operator writes. */
export function activation(shape: readonly Dim[]): Tensor {
  return { dtype: 'f32', shape, role: 'activation' };
}

export function leading(tensor: Tensor): Dim {
  const dim = tensor.shape[0];
  expect(dim !== undefined, 'a scalar has no leading dimension');
  return dim;
}

export function lastDim(tensor: Tensor): Dim {
  const dim = tensor.shape.at(-1);
  expect(dim !== undefined, 'a scalar has no last dimension');
  return dim;
}

export function floats(operand: Operand): Float32Array {
  if (operand.data instanceof Float32Array) return operand.data;
  throw new TypeMismatch('expected floating-point data');
}

export function ints(operand: Operand): Int32Array {
  if (operand.data instanceof Int32Array) return operand.data;
  throw new TypeMismatch('expected int32 data');
}
