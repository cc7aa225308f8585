/**
 * What an operator is, in one value: its shapes, its cost, how workers may share it, and its meaning in plain TypeScript.
 * One file per operator defines one; index.ts lists them. Backends add an emitter per operator and nothing else.
 */
import type { DType, Name, OperatorKind, OperatorOf, OperatorTable, Tensor } from '../ir/program.js';

export interface OperatorDefinition<K extends OperatorKind> {
  readonly kind: K;
  /** Operand names in the order they are printed. */
  readonly reads: readonly (keyof OperatorTable[K]['reads'] & string)[];
  readonly optionalReads: readonly (keyof OperatorTable[K]['reads'] & string)[];
  readonly updates: readonly (keyof OperatorTable[K]['updates'] & string)[];
  readonly writes: readonly (keyof OperatorTable[K]['writes'] & string)[];
  readonly attributes: Readonly<Record<keyof OperatorTable[K]['attributes'] & string, 'number' | 'string'>>;
  /** How the result may be divided among workers (planStages). */
  readonly split: Split;
  /** Types of what is written. @throws TypeMismatch where the operands do not fit. */
  infer(operator: OperatorOf<K>, typeOf: (name: Name) => Tensor): Readonly<Record<Name, Tensor>>;
  /** Arithmetic and memory traffic of one execution on one socket. */
  cost(operator: OperatorOf<K>, typeOf: (name: Name) => Tensor, at: CostExtents): Cost;
  /** The meaning. `sockets[s](name)` is the operand on socket s; collectives look at all of them, others at one each. */
  evaluate(operator: OperatorOf<K>, sockets: readonly Operands[]): void;
}

/**
 * - `replicated`: each worker computes all of it for itself (norms: cheap, and saves a synchronization);
 * - `features`: divided along the last dimension; reads named in `whole` are needed completely, others at the same part;
 * - `heads`: divided by key/value head; all operands at the same heads;
 * - `single`: one worker does it;
 * - `sockets`: a collective over sockets.
 */
export type Split =
  | { readonly kind: 'replicated' }
  | { readonly kind: 'features'; readonly whole: readonly string[] }
  | { readonly kind: 'heads' }
  | { readonly kind: 'single' }
  | { readonly kind: 'sockets' };

export interface CostExtents {
  readonly rows: number;
  readonly samples: number;
  /** Whose rows these are; default: as many as there may be. */
  readonly sequences?: number;
  /** Mean number of positions a row attends to. */
  readonly context: number;
}

/** Bytes are what must cross the memory of one socket at least once; activations are counted apart. */
export interface Cost {
  readonly flops: number;
  readonly weightBytes: number;
  readonly stateBytes: number;
  readonly activationBytes: number;
}

/** A tensor at run time: activations and weights are float32 however they are stored, indices are int32. */
export interface Operand {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

export type Operands = (name: Name) => Operand;

/** The operands of an operator do not fit together. */
export class TypeMismatch extends Error {
  override readonly name = 'TypeMismatch';
}

/** The same evaluation on every socket, for operators that do not look at their neighbours. */
export function perSocket<K extends OperatorKind>(
  evaluate: (operator: OperatorOf<K>, operand: Operands) => void,
): (operator: OperatorOf<K>, sockets: readonly Operands[]) => void {
  return (operator, sockets) => {
    for (const operand of sockets) evaluate(operator, operand);
  };
}
