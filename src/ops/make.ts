/** Writing operators by hand: model builder and tests. */
import type { Operator, OperatorKind } from '../ir/program.js';

type Of<K extends OperatorKind> = Operator & { readonly kind: K };

/** An operator of kind `kind`; operand names are those of its scope. */
export function makeOperator<K extends OperatorKind>(
  kind: K,
  reads: Of<K>['reads'],
  writes: Of<K>['writes'],
  updates?: Of<K>['updates'],
  attributes?: Of<K>['attributes'],
): Operator {
  // Operators without updates or attributes have empty records there, which is what the defaults are.
  return { kind, reads, writes, updates: updates ?? {}, attributes: attributes ?? {} } as Operator;
}
