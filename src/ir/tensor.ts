/** Sizes of tensors: symbolic dimensions made concrete, bytes by dtype, equality. */
import { blockOf } from './formats.js';
import type { Dim, DType, Limits, Tensor } from './program.js';

/** Run-time counts of one step; at most the program's limits. */
export interface Extents {
  readonly rows: number;
  readonly samples: number;
}

/** Bytes of `elements` consecutive elements; of quantized formats, whole blocks. */
export function bytesOf(dtype: DType, elements: number): number {
  const block = blockOf(dtype);
  return (elements / block.elements) * block.bytes;
}

export function concreteDim(dim: Dim, extents: Extents): number {
  return typeof dim === 'number' ? dim : extents[dim];
}

export function concreteShape(shape: readonly Dim[], extents: Extents): number[] {
  return shape.map((dim) => concreteDim(dim, extents));
}

/** Elements of a tensor at the given extents. */
export function elementsOf(tensor: Tensor, extents: Extents): number {
  return concreteShape(tensor.shape, extents).reduce((product, dim) => product * dim, 1);
}

export function tensorBytes(tensor: Tensor, extents: Extents): number {
  return bytesOf(tensor.dtype, elementsOf(tensor, extents));
}

/** The most elements that a tensor can have in this program. */
export function maxElements(tensor: Tensor, limits: Limits): number {
  return elementsOf(tensor, limits);
}

export function sameShape(a: readonly Dim[], b: readonly Dim[]): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

export function sameTensor(a: Tensor, b: Tensor): boolean {
  return a.dtype === b.dtype && a.role === b.role && sameShape(a.shape, b.shape);
}

/** `bf16[512, 4096]`, as it is printed everywhere. */
export function formatTensor(tensor: Tensor): string {
  return `${tensor.dtype}[${tensor.shape.join(', ')}]`;
}

/** `count` tensors of this type under a new leading dimension. */
export function stackTensor(tensor: Tensor, count: number): Tensor {
  return { ...tensor, shape: [count, ...tensor.shape] };
}

/** One slice of a stack. */
export function sliceTensor(tensor: Tensor): Tensor {
  return { ...tensor, shape: tensor.shape.slice(1) };
}
