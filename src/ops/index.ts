/** The list of operators. A new one is a line in ir/program.ts, a file here, a line here, and an emitter per backend. */
import type { Operator, OperatorKind } from '../ir/program.js';
import type { Name, Tensor } from '../ir/program.js';
import type { Cost, CostExtents, OperatorDefinition, Operands } from './definition.js';
import { linear } from './linear.js';

export const operators: { readonly [K in OperatorKind]: OperatorDefinition<K> } = {
  linear,
};

/** The definition of an operator of any kind, with its operand records widened: for code that treats all alike. */
export interface AnyDefinition {
  readonly kind: OperatorKind;
  readonly reads: readonly string[];
  readonly optionalReads: readonly string[];
  readonly updates: readonly string[];
  readonly writes: readonly string[];
  readonly attributes: Readonly<Record<string, 'number' | 'string'>>;
  readonly split: OperatorDefinition<'linear'>['split'];
  infer(operator: Operator, typeOf: (name: Name) => Tensor): Readonly<Record<Name, Tensor>>;
  cost(operator: Operator, typeOf: (name: Name) => Tensor, at: CostExtents): Cost;
  evaluate(operator: Operator, sockets: readonly Operands[]): void;
}

export function definitionOf(kind: OperatorKind): AnyDefinition {
  // Kind and operator agree by construction; TypeScript cannot see that through the union.
  return operators[kind] as unknown as AnyDefinition;
}
