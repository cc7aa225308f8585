/**
 * What must hold for how workers share a region, besides the order of its stages. Of copies that every worker makes for
 * itself: nobody outside may want them, every worker must be able to compute all of them, and they must not outlive the
 * stage, since a worker may take part in one and not in another. Of projections divided by heads: heads are whole tiles.
 */
import type { Name, Region, RegionPlan, Stage, Statement, Tensor } from '../ir/program.js';
import { isKind, usesOf } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import { featureUnit, kvHeadsOf } from './plan-stages.js';

/** One sentence for each name that is wrongly replicated. */
export function wrongReplicas(region: Region, plan: RegionPlan, visible: ReadonlySet<Name>): string[] {
  const stageOf = stagesOfStatements(plan);
  return plan.replicated.flatMap((name): string[] => {
    const writer = region.statements.findIndex((statement) => changes(statement).includes(name));
    const made = region.statements[writer];
    if (made === undefined) return [`${name} is replicated, but nothing here writes it`];
    if (visible.has(name)) return [`${name} is replicated, but is seen outside, where there is one of it`];
    const others = changes(made).filter((other) => !plan.replicated.includes(other));
    if (others.length > 0) return [`${name} is replicated, but is written together with ${others.join(', ')}`];
    if (!canReplicate(made, plan.stages[stageOf[writer]!]!))
      return [`${name} is replicated, but not every worker can compute all of it`];
    const strays = region.statements.filter(
      (statement, index) => stageOf[index] !== stageOf[writer] && usesOf(statement).some((use) => use.name === name),
    );
    return strays.length === 0 ? [] : [`${name} is replicated in stage ${stageOf[writer]!}, but used in another one`];
  });
}

function changes(statement: Statement): Name[] {
  return usesOf(statement).flatMap(({ name, access }) => (access === 'read' ? [] : [name]));
}

/** Operators on whole rows, and elementwise ones; rotations where heads are not what keeps workers apart. */
function canReplicate(statement: Statement, stage: Stage): boolean {
  if (statement.kind === 'loop') return false;
  if (statement.kind === 'rope') return stage.split === 'context';
  const { split } = definitionOf(statement.kind);
  return split.kind === 'replicated' || (split.kind === 'features' && split.whole.length === 0);
}

/** A projection that is divided by key/value head is handed out in tiles: one sentence for each that heads cut. */
export function cutTiles(region: Region, plan: RegionPlan, types: ReadonlyMap<Name, Tensor>): string[] {
  const stageOf = stagesOfStatements(plan);
  const kvHeads = kvHeadsOf(region.statements, types)?.count;
  return region.statements.flatMap((statement, index): string[] => {
    if (statement.kind === 'loop' || !isKind(statement, 'linear')) return [];
    if (plan.stages[stageOf[index]!]!.split !== 'heads') return [];
    const width = Number(types.get(statement.reads.weight)?.shape[0]) / (kvHeads ?? 0);
    return width % featureUnit === 0 ? [] : [`${statement.writes.y} is divided by heads of ${width}, which cut tiles`];
  });
}

/** The stage of each statement, in order. */
export function stagesOfStatements(plan: RegionPlan): number[] {
  return plan.stages.flatMap(({ statements }, stage) => Array.from({ length: statements }, () => stage));
}
