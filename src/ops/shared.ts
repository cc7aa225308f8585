/** Small helpers of the operator files: checks of operand types, costs, and access to run-time data. */
import type { Dim, Tensor } from '../ir/program.js';
import { formatTensor, sameShape, tensorBytes } from '../ir/tensor.js';
import { TypeMismatch, type Cost, type CostExtents, type Operand } from './definition.js';

export function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new TypeMismatch(message);
}

/** An f32 activation of this shape: what nearly every operator writes. */
export function activation(shape: readonly Dim[]): Tensor {
  return { dtype: 'f32', shape, role: 'activation' };
}

/** One int32 per row or per sample. */
export function indexVector(length: Dim): Tensor {
  return { dtype: 'i32', shape: [length], role: 'index' };
}

/** @throws TypeMismatch unless `tensor` is f32 with two dimensions: what activations are. */
export function expectMatrix(what: string, tensor: Tensor): void {
  expect(
    tensor.dtype === 'f32' && tensor.shape.length === 2,
    `${what} must be f32[rows, n], is ${formatTensor(tensor)}`,
  );
  expect(
    typeof tensor.shape[1] === 'number',
    `${what} has a last dimension that is not known, ${formatTensor(tensor)}`,
  );
}

/** @throws TypeMismatch unless `tensor` is i32 of exactly this shape. */
export function expectIndices(what: string, tensor: Tensor, shape: readonly Dim[]): void {
  const fits = tensor.dtype === 'i32' && sameShape(tensor.shape, shape);
  expect(fits, `${what} must be i32[${shape.join(', ')}], is ${formatTensor(tensor)}`);
}

/** @throws TypeMismatch unless both are f32 of one shape; returns that type. */
export function expectSame(what: string, a: Tensor, b: Tensor): Tensor {
  expectMatrix(what, a);
  const fits = b.dtype === a.dtype && sameShape(a.shape, b.shape);
  expect(fits, `${what} has operands of different types, ${formatTensor(a)} and ${formatTensor(b)}`);
  return activation(a.shape);
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

/** Length of a dimension that is a constant of the model. @throws TypeMismatch for `rows`, `samples` and a missing one. */
export function fixedDim(what: string, dim: Dim | undefined): number {
  expect(typeof dim === 'number', `${what} must have a fixed size, has ${String(dim)}`);
  return dim;
}

/** Cost of an operator that touches only these activations, each once. */
export function activationCost(flops: number, touched: readonly Tensor[], at: CostExtents): Cost {
  const activationBytes = touched.reduce((bytes, tensor) => bytes + tensorBytes(tensor, at), 0);
  return { flops, weightBytes: 0, stateBytes: 0, activationBytes };
}

export function floats(operand: Operand): Float32Array {
  if (operand.data instanceof Float32Array) return operand.data;
  throw new TypeMismatch('expected floating-point data');
}

export function ints(operand: Operand): Int32Array {
  if (operand.data instanceof Int32Array) return operand.data;
  throw new TypeMismatch('expected int32 data');
}
