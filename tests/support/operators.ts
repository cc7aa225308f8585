/** Runs one operator on plain arrays, for tests of its meaning, types and cost. */
import type { DType, Name, Operator, Tensor } from '../../src/ir/program.js';
import type { Cost, CostExtents, Operand } from '../../src/ops/definition.js';
import { definitionOf } from '../../src/ops/index.js';

/** Numbers nested as deep as the shape is long. */
export type Nested = number | readonly Nested[];

export function f32(values: Nested, dtype: DType = 'f32'): Operand {
  return { dtype, shape: shapeOf(values), data: Float32Array.from(flatten(values)) };
}

export function i32(values: Nested): Operand {
  return { dtype: 'i32', shape: shapeOf(values), data: Int32Array.from(flatten(values)) };
}

function shapeOf(values: Nested): number[] {
  return typeof values === 'number' ? [] : [values.length, ...(values.length === 0 ? [] : shapeOf(values[0]!))];
}

function flatten(values: Nested): number[] {
  return typeof values === 'number' ? [values] : values.flatMap(flatten);
}

/** Evaluates on one socket with concrete shapes; returns what was written, by name, as plain numbers. */
export function evaluate(operator: Operator, operands: Readonly<Record<Name, Operand>>): Record<Name, number[]> {
  return evaluateOn(operator, [operands])[0]!;
}

/** The same on several sockets. */
export function evaluateOn(
  operator: Operator,
  sockets: readonly Readonly<Record<Name, Operand>>[],
): Record<Name, number[]>[] {
  const definition = definitionOf(operator.kind);
  const written = definition.infer(operator, (name) => {
    const { dtype, shape } = sockets[0]![name]!;
    return { dtype, shape, role: 'activation' };
  });
  const held = sockets.map((operands) => {
    const results = Object.entries(written).map(([name, tensor]): [Name, Operand] => {
      const shape = tensor.shape as number[];
      const length = shape.reduce((product, dim) => product * dim, 1);
      const data = tensor.dtype === 'i32' ? new Int32Array(length) : new Float32Array(length);
      return [name, { dtype: tensor.dtype, shape, data }];
    });
    return new Map([...Object.entries(operands), ...results]);
  });
  definition.evaluate(
    operator,
    held.map((names) => (name) => names.get(name)!),
  );
  const changed = [...Object.keys(written), ...Object.values<Name>(operator.updates)];
  return held.map((names) => Object.fromEntries(changed.map((name) => [name, [...names.get(name)!.data]])));
}

/** `bf16[8, rows] weight` and the like, for tests of types. */
export function tensor(dtype: DType, ...shape: Tensor['shape']): Tensor {
  return { dtype, shape, role: 'activation' };
}

export function infer(operator: Operator, types: Readonly<Record<Name, Tensor>>): Readonly<Record<Name, Tensor>> {
  return definitionOf(operator.kind).infer(operator, (name) => types[name]!);
}

/** Cost with the types of the reads given, those of the writes inferred. */
export function costOf(operator: Operator, types: Readonly<Record<Name, Tensor>>, at: CostExtents): Cost {
  const all = { ...types, ...infer(operator, types) };
  return definitionOf(operator.kind).cost(operator, (name) => all[name]!, at);
}
