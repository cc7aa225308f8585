/** Walking and renaming, the same for every operator: operands are records of names. */
import type {
  Access,
  Binding,
  Loop,
  Name,
  Operator,
  OperatorKind,
  OperatorOf,
  Region,
  Stage,
  Statement,
} from './program.js';

export interface Use {
  readonly name: Name;
  readonly access: Access;
}

/** The statements of every stage, in order. */
export function statementsByStage({ statements }: Region, stages: readonly Stage[]): Statement[][] {
  let next = 0;
  return stages.map((stage) => {
    const begin = next;
    next += stage.statements;
    return statements.slice(begin, next);
  });
}

/** Every name a statement touches in its own scope: reads first, then updates, then writes. */
export function usesOf(statement: Statement): Use[] {
  if (statement.kind === 'loop') return statement.bindings.flatMap(usesOfBinding);
  const uses: Use[] = [];
  for (const name of namesOf(statement.reads)) uses.push({ name, access: 'read' });
  for (const name of namesOf(statement.updates)) uses.push({ name, access: 'update' });
  for (const name of namesOf(statement.writes)) uses.push({ name, access: 'write' });
  return uses;
}

function usesOfBinding(binding: Binding): Use[] {
  switch (binding.kind) {
    case 'invariant':
    case 'stacked':
      return [{ name: binding.outer, access: binding.access }];
    case 'carried': {
      const initial: Use = { name: binding.outer, access: 'read' };
      return binding.final === undefined ? [initial] : [initial, { name: binding.final, access: 'write' }];
    }
    default:
      return binding satisfies never;
  }
}

function namesOf(operands: object): Name[] {
  return Object.values(operands as Readonly<Record<string, Name>>);
}

/** The statement with the names of its own scope replaced; the inside of a loop keeps its names. */
export function renameStatement(statement: Statement, rename: (name: Name) => Name): Statement {
  if (statement.kind !== 'loop') return renameOperator(statement, rename);
  return { ...statement, bindings: statement.bindings.map((binding) => renameOuter(binding, rename)) };
}

function renameOuter(binding: Binding, rename: (name: Name) => Name): Binding {
  if (binding.kind !== 'carried' || binding.final === undefined) return { ...binding, outer: rename(binding.outer) };
  return { ...binding, outer: rename(binding.outer), final: rename(binding.final) };
}

function renameOperator(operator: Operator, rename: (name: Name) => Name): Operator {
  const all = <T extends object>(operands: T): T => {
    const renamed: Record<string, Name> = {};
    const source = operands as Readonly<Record<string, Name>>;
    for (const key of Object.keys(source)) renamed[key] = rename(source[key]!);
    return renamed as T;
  };
  // The spread loses the link between kind and operand records, which mapping their values does not change.
  return {
    ...operator,
    reads: all(operator.reads),
    updates: all(operator.updates),
    writes: all(operator.writes),
  } as Operator;
}

/** All operators of a region in order, those of loop bodies included (once). */
export function* operatorsOf(region: Region): Generator<Operator> {
  for (const statement of region.statements) {
    if (statement.kind === 'loop') yield* operatorsOf(statement.body);
    else yield statement;
  }
}

/** All loops of a region, outer before inner. */
export function* loopsOf(region: Region): Generator<Loop> {
  for (const statement of region.statements) {
    if (statement.kind !== 'loop') continue;
    yield statement;
    yield* loopsOf(statement.body);
  }
}

/** True where `operator` is of kind `kind`; narrows its operand records. */
export function isKind<K extends OperatorKind>(operator: Operator, kind: K): operator is Operator & OperatorOf<K> {
  return operator.kind === kind;
}
