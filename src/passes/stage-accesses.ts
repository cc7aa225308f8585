/**
 * Which part of what is touched, stage by stage: what checkSchedule reasons about. Any worker may take any chunk of a stage,
 * so that parts tell nothing about who touches them in another stage.
 */
import type { Access, Name, Operator, Region, RegionPlan, Stage, Tensor } from '../ir/program.js';
import { statementsByStage, usesOf } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import { divisionOf, type Division } from './plan-stages.js';

export interface StageAccess {
  readonly stage: number;
  readonly name: Name;
  readonly access: Access;
  /**
   * `whole`: with every chunk. `single`: with one chunk only. Else with each chunk its part, and parts of equal texts are the
   * same division: `heads`, `context`, or `features of 4096`.
   */
  readonly part: string;
  /** Made by a loop of this stage, whose inside is checked on its own. */
  readonly inLoop: boolean;
}

/** Can two workers touch the same element through these accesses of one stage? */
export function meet(a: StageAccess, b: StageAccess): boolean {
  return a.part === 'whole' || b.part === 'whole' || a.part !== b.part;
}

/** Accesses to what workers share; copies of their own are left out. */
export function accessesOf(region: Region, plan: RegionPlan, types: ReadonlyMap<Name, Tensor>): StageAccess[] {
  const accesses: StageAccess[] = [];
  statementsByStage(region, plan.stages).forEach((statements, index) => {
    for (const statement of statements) {
      for (const part of partsOf(statement, plan.stages[index]!, plan, types)) {
        if (!plan.replicated.includes(part.name)) accesses.push({ stage: index, ...part });
      }
    }
  });
  return accesses;
}

type Part = Omit<StageAccess, 'stage'>;

function partsOf(
  statement: Region['statements'][number],
  stage: Stage,
  plan: RegionPlan,
  types: ReadonlyMap<Name, Tensor>,
): Part[] {
  if (statement.kind === 'loop') return usesOf(statement).map((use) => ({ ...use, part: 'whole', inLoop: true }));
  const division = divisionOf(statement, stage, plan, types);
  const operands: readonly (readonly [Access, Readonly<Record<string, Name>>])[] = [
    ['read', statement.reads],
    ['update', statement.updates],
    ['write', statement.writes],
  ];
  return operands.flatMap(([access, names]) =>
    Object.entries(names).map(([operand, name]) => ({
      name,
      access,
      part: partOf(statement, operand, types.get(name), division),
      inLoop: false,
    })),
  );
}

/** Operands that are divided by head where their operator is; all others of it are needed whole. */
const headOperands: ReadonlySet<string> = new Set(['q', 'k', 'v', 'x', 'y', 'keys', 'values']);

function partOf(operator: Operator, operand: string, tensor: Tensor | undefined, division: Division): string {
  const { split } = definitionOf(operator.kind);
  const whole = split.kind === 'features' ? split.whole : [];
  switch (division) {
    case 'replicated':
      return 'whole';
    case 'single':
      return 'single';
    case 'heads':
      return headOperands.has(operand) && !whole.includes(operand) ? 'heads' : 'whole';
    case 'context':
      // Whichever chunk is the last of a head writes its result.
      if (operator.kind === 'attention' && operand === 'y') return 'heads';
      return operand === 'keys' || operand === 'values' ? 'context' : 'whole';
    case 'features':
      // An operator that is divided by heads only, among others that are not, is done by everybody.
      if (split.kind !== 'features') return 'whole';
      return whole.includes(operand) ? 'whole' : `features of ${tensor?.shape.at(-1)}`;
    default:
      return division satisfies never;
  }
}
