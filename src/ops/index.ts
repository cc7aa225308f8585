/** The list of operators. A new one is a line in ir/program.ts, a file here, a line here, and an emitter per backend. */
import type { Name, Operator, OperatorKind, Tensor } from '../ir/program.js';
import type { Cost, CostExtents, OperatorDefinition, Operands } from './definition.js';
import { add } from './add.js';
import { advance } from './advance.js';
import { allGather } from './all-gather.js';
import { allReduce } from './all-reduce.js';
import { appendKv } from './append-kv.js';
import { appendToken } from './append-token.js';
import { attention } from './attention.js';
import { embed } from './embed.js';
import { gatherRows } from './gather-rows.js';
import { geluMul } from './gelu-mul.js';
import { linear } from './linear.js';
import { rmsNorm } from './rms-norm.js';
import { rope } from './rope.js';
import { ropeTable } from './rope-table.js';
import { sample } from './sample.js';
import { siluMul } from './silu-mul.js';
import { softcap } from './softcap.js';

export const operators: { readonly [K in OperatorKind]: OperatorDefinition<K> } = {
  embed,
  appendToken,
  ropeTable,
  rmsNorm,
  linear,
  rope,
  appendKv,
  attention,
  siluMul,
  geluMul,
  add,
  allReduce,
  allGather,
  gatherRows,
  softcap,
  sample,
  advance,
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
  // Kind and operator agree by construction, so that the widened methods are only called with their own operators.
  return operators[kind];
}
