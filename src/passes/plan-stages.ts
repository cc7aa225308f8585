/**
 * planStages: how workers share the body of a kernel. Operators are put into stages so that inside a stage no worker needs
 * what another one makes; between stages they synchronize. The fewer stages, the fewer synchronizations:
 *
 *   norm | qkv | rope append attention | o add | norm | gate/up silu | down add      one operator, one worker's part
 *   ( norm  qkv  rope append attention )( o add )( norm gate/up silu )( down add )   -->  four stages of a layer
 *
 * - cheap operators on whole rows (norms) are computed by every worker that takes part in a stage, into a copy of its own;
 * - Q, K and V are divided by key/value head where heads divide evenly, so that attention follows without a border;
 * - where they do not, attention is divided by blocks of the context as well, on machines that can do that;
 * - elementwise operators follow the division of what they read.
 */
import type {
  Kernel,
  Loop,
  Name,
  Operator,
  Program,
  Region,
  RegionPlan,
  Stage,
  Statement,
  Tensor,
} from '../ir/program.js';
import { inferRegion, loopScope } from '../ir/infer.js';
import { isKind, statementsByStage, usesOf } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import { defined } from '../util/assert.js';
import type { PassContext, PassResult } from './pass.js';

/** Features are handed out in units of this many, which is also the height of a weight tile. */
export const featureUnit = 16;

export function planStages(program: Program, context: PassContext): PassResult {
  const notes: string[] = [];
  const kernels = program.kernels.map((kernel): Kernel => {
    const types = new Map(kernel.params.map((param) => [param.name, param.tensor]));
    const visible = new Set(types.keys());
    const { workers, contextBlock, projectionsByHead = true } = context;
    const body = planRegion(kernel.body, { types, visible, workers, contextBlock, projectionsByHead });
    notes.push(`${kernel.name}: ${describe(body)}`);
    return { ...kernel, body };
  });
  return { program: { ...program, kernels }, report: { pass: 'planStages', notes, refusals: [] } };
}

/** `4 stages per layer (attn_norm, o_proj, ...)`; loops are told by their bodies. */
function describe(region: Region): string {
  const loop = region.statements.find((statement): statement is Loop => statement.kind === 'loop');
  if (region.statements.length === 1 && loop !== undefined) return `for each ${loop.over} ${describe(loop.body)}`;
  const stages = region.plan?.stages ?? [];
  return `${stages.length} stage${stages.length === 1 ? '' : 's'} (${stages.map((stage) => stage.name).join(', ')})`;
}

interface Scope {
  /** Types of the names that come from outside. */
  readonly types: ReadonlyMap<Name, Tensor>;
  /** Names that are seen outside: parameters, bound names, what is carried on. They exist once for all workers. */
  readonly visible: ReadonlySet<Name>;
  readonly workers: number;
  readonly contextBlock: number | undefined;
  readonly projectionsByHead: boolean;
}

function planRegion(region: Region, scope: Scope, isLoopBody = false): Region {
  const types = inferRegion(region, scope.types);
  const statements = region.statements.map((statement): Statement => {
    if (statement.kind !== 'loop') return statement;
    const visible = visibleInLoop(statement);
    const inner: Scope = { ...scope, types: loopScope(statement, types), visible };
    return { ...statement, body: planRegion(statement.body, inner, true) };
  });
  return { ...region, statements, plan: planStatements({ ...region, statements }, types, scope, isLoopBody) };
}

/**
 * A worker that took no part in a stage has no copies of its own from it, so that a copy serves only the stage it is made
 * in. What later stages read as well is made once for all: found by planning, and planned again.
 */
function planStatements(
  region: Region,
  types: ReadonlyMap<Name, Tensor>,
  scope: Scope,
  isLoopBody: boolean,
): RegionPlan {
  const visible = new Set(scope.visible);
  for (;;) {
    const plan = new StagePlanner(region.statements, types, { ...scope, visible }).plan(region, isLoopBody);
    const kept = replicatedAndKept(region, plan);
    if (kept.length === 0) return plan;
    for (const name of kept) visible.add(name);
  }
}

/** Replicated names that another stage than their own reads. */
function replicatedAndKept(region: Region, plan: RegionPlan): Name[] {
  const kept: Name[] = [];
  for (const statements of statementsByStage(region, plan.stages)) {
    const uses = statements.flatMap(usesOf);
    const own = new Set(uses.filter(({ access }) => access === 'write').map(({ name }) => name));
    kept.push(...uses.map(({ name }) => name).filter((name) => plan.replicated.includes(name) && !own.has(name)));
  }
  return kept;
}

export function visibleInLoop(loop: Loop): Set<Name> {
  const visible = new Set<Name>();
  for (const binding of loop.bindings) {
    visible.add(binding.name);
    if (binding.kind === 'carried') visible.add(binding.next);
  }
  if (loop.until !== undefined) visible.add(loop.until);
  return visible;
}

/** How an operator is divided, in its region. `replicated`: every worker of the stage computes all of it for itself. */
export type Division = 'features' | 'heads' | 'context' | 'single' | 'replicated';

/** How every worker holds a name while a stage runs. */
type Held = 'shared' | 'own' | 'features' | 'heads' | 'context' | 'single';

/** Chunks of a stage are counted in a few bits: beyond this many key/value heads they are fine enough. */
const maxHeadsInContext = 1024;

class StagePlanner {
  private readonly held = new Map<Name, Held>();
  private readonly replicated: Name[] = [];
  private readonly stages: Stage[] = [];
  private count = 0;
  private split: Stage['split'] = 'single';
  private first = 0;

  constructor(
    private readonly statements: readonly Statement[],
    private readonly types: ReadonlyMap<Name, Tensor>,
    private readonly scope: Scope,
  ) {}

  plan(region: Region, isLoopBody: boolean): RegionPlan {
    const names = segmentNames(region);
    this.statements.forEach((statement, index) => {
      if (statement.kind === 'loop') {
        this.close(names);
        this.open(index);
        this.split = 'loop';
        this.count = 1;
        this.close(names);
        return;
      }
      let division = this.divide(statement);
      if (division === undefined) {
        this.close(names);
        division = defined(this.divide(statement), 'division in a fresh stage');
      }
      if (this.count === 0) this.open(index);
      this.join(statement, division);
    });
    this.close(names);
    const last = this.stages.length - 1;
    const handOffs = this.stages.slice(1).map((_, index) => ({ from: index, to: index + 1, distance: 0 }));
    if (isLoopBody) handOffs.push({ from: last, to: 0, distance: 1 });
    return { stages: this.stages, replicated: this.replicated, handOffs };
  }

  private open(index: number): void {
    this.first = index;
    this.split = 'single';
  }

  private close(names: readonly Name[]): void {
    if (this.count === 0) return;
    this.stages.push({ name: defined(names[this.first], 'stage name'), statements: this.count, split: this.split });
    this.count = 0;
    for (const [name, held] of this.held) if (held !== 'own') this.held.set(name, 'shared');
  }

  private join(operator: Operator, division: Division): void {
    this.count++;
    if (division === 'features' || division === 'heads' || division === 'context') this.split = division;
    const written = usesOf(operator).filter(({ access }) => access !== 'read');
    for (const { name } of written) {
      this.held.set(name, division === 'replicated' ? 'own' : division);
      if (division === 'replicated') this.replicated.push(name);
    }
  }

  /** How this operator can join the open stage; undefined where it needs a new one. */
  private divide(operator: Operator): Division | undefined {
    const wanted = this.naturalDivision(operator);
    const reads = usesOf(operator)
      .filter(({ access }) => access !== 'write')
      .map(({ name }) => ({ name, held: this.held.get(name) ?? 'shared' }));
    const complete = reads.every(({ held }) => held === 'shared' || held === 'own');
    const local = this.isLocal(operator);
    if (wanted === 'replicated') {
      if (local) return complete ? 'replicated' : undefined;
      return complete || !reads.some(({ held }) => isDivided(held)) ? 'single' : undefined;
    }
    if (wanted === 'single') return reads.some(({ held }) => isDivided(held)) ? undefined : wanted;
    if (complete && local && reads.some(({ held }) => held === 'own') && this.isElementwise(operator))
      return 'replicated';
    if (this.count > 0 && this.split !== 'single' && this.split !== wanted) return undefined;
    const whole = new Set(wanted === 'context' ? rowsOf(operator) : wholeReads(operator));
    const aligned = reads.every(
      ({ name, held }) =>
        held === 'shared' || held === 'own' || (held === wanted && !whole.has(name) && this.sameWidth(operator, name)),
    );
    return aligned ? wanted : undefined;
  }

  private naturalDivision(operator: Operator): Division {
    const { split } = definitionOf(operator.kind);
    if (isKind(operator, 'linear') && this.feedsHeads(operator.writes.y)) return 'heads';
    if (this.dividesContext()) {
      if (cacheOf(operator) !== undefined) return 'context';
      // A head has several units here, so that each worker makes what they need for itself.
      const forHeads = isKind(operator, 'rope') || isPerHeadNorm(operator, this.types);
      if (forHeads && this.isLocal(operator)) return 'replicated';
    }
    if (isPerHeadNorm(operator, this.types)) return 'heads';
    switch (split.kind) {
      case 'replicated':
      case 'features':
      case 'heads':
      case 'single':
        return split.kind;
      case 'sockets':
        return 'single';
      default:
        return split satisfies never;
    }
  }

  /** A projection whose result only heads read may be divided by heads, where they divide evenly and on tile borders. */
  private feedsHeads(name: Name): boolean {
    if (!this.scope.projectionsByHead) return false;
    const kvHeads = kvHeadsOf(this.statements, this.types);
    if (kvHeads === undefined || kvHeads.count % this.scope.workers !== 0) return false;
    if (kvHeads.headDim % featureUnit !== 0 || this.scope.visible.has(name)) return false;
    const readers = this.statements.filter((statement) =>
      usesOf(statement).some((use) => use.name === name && use.access === 'read'),
    );
    return readers.every(
      (reader) =>
        reader.kind !== 'loop' &&
        (definitionOf(reader.kind).split.kind === 'heads' || isPerHeadNorm(reader, this.types)),
    );
  }

  /** Attention is divided by blocks of the context where its heads alone would leave workers idle. */
  private dividesContext(): boolean {
    const { workers, contextBlock } = this.scope;
    const kvHeads = kvHeadsOf(this.statements, this.types);
    if (kvHeads === undefined || contextBlock === undefined) return false;
    const attends = this.statements.some(({ kind }) => kind === 'attention');
    const uneven = kvHeads.count % workers !== 0 && kvHeads.count <= maxHeadsInContext;
    return attends && uneven && kvHeads.context > contextBlock;
  }

  private isLocal(operator: Operator): boolean {
    return usesOf(operator).every(({ name, access }) => access === 'read' || !this.scope.visible.has(name));
  }

  private isElementwise(operator: Operator): boolean {
    const { split } = definitionOf(operator.kind);
    return split.kind === 'features' && split.whole.length === 0;
  }

  /** Elementwise operators follow the division of what they read only if both are divided over the same features. */
  private sameWidth(operator: Operator, name: Name): boolean {
    const { split } = definitionOf(operator.kind);
    if (split.kind !== 'features') return true;
    const written = usesOf(operator).find(({ access }) => access === 'write');
    const width = (n: Name): unknown => this.types.get(n)?.shape.at(-1);
    return written !== undefined && width(written.name) === width(name);
  }
}

/** The kernel of the operator schedule that each statement came from. */
function segmentNames(region: Region): Name[] {
  return region.segments.flatMap((segment) => Array.from({ length: segment.statements }, () => segment.kernel));
}

function wholeReads(operator: Operator): Name[] {
  const { split } = definitionOf(operator.kind);
  const reads = operator.reads as Readonly<Record<string, Name>>;
  return split.kind === 'features' ? split.whole.map((operand) => defined(reads[operand], operand)) : [];
}

/** What attention needs of rows: all of it, where several units share a head. Of caches, each unit has its own blocks. */
function rowsOf(operator: Operator): Name[] {
  const cached = isKind(operator, 'attention') ? [operator.reads.keys, operator.reads.values] : [];
  return Object.values<Name>(operator.reads).filter((name) => !cached.includes(name));
}

function isDivided(held: Held): boolean {
  return held === 'features' || held === 'heads' || held === 'context';
}

/** An RMSNorm of every head for itself (Qwen3), which can be divided by heads. */
function isPerHeadNorm(operator: Operator, types: ReadonlyMap<Name, Tensor>): boolean {
  if (!isKind(operator, 'rmsNorm')) return false;
  return types.get(operator.reads.weight)?.shape[0] !== types.get(operator.reads.x)?.shape.at(-1);
}

/** Key/value heads of the caches that these statements use, their size, and the positions of a slot. */
export function kvHeadsOf(
  statements: readonly Statement[],
  types: ReadonlyMap<Name, Tensor>,
): { readonly count: number; readonly context: number; readonly headDim: number } | undefined {
  for (const statement of statements) {
    const cache = statement.kind === 'loop' ? undefined : cacheOf(statement);
    if (cache === undefined) continue;
    const [, count, context, headDim] = defined(types.get(cache), cache).shape.map(Number);
    return { count: count!, context: context!, headDim: headDim! };
  }
  return undefined;
}

function cacheOf(operator: Operator): Name | undefined {
  if (isKind(operator, 'attention')) return operator.reads.keys;
  return isKind(operator, 'appendKv') ? operator.updates.keys : undefined;
}

/** How each operator of a planned region is divided; what emitters and checkSchedule go by. */
export function divisionOf(
  operator: Operator,
  stage: Stage,
  plan: RegionPlan,
  types: ReadonlyMap<Name, Tensor>,
): Division {
  const written = usesOf(operator).filter(({ access }) => access !== 'read');
  if (written.length > 0 && written.every(({ name }) => plan.replicated.includes(name))) return 'replicated';
  const { split } = definitionOf(operator.kind);
  if (isPerHeadNorm(operator, types)) return stage.split === 'heads' ? 'heads' : 'single';
  if (split.kind === 'heads' && stage.split === 'context') return 'context';
  if (split.kind === 'features' || split.kind === 'heads') return stage.split === 'heads' ? 'heads' : 'features';
  return 'single';
}
