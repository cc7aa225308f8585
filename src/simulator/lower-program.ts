/**
 * Program -> Workload: every operator becomes a node with the cost that ops/ gives it, joined to the nodes whose results
 * it reads. Kernel borders, loops and how far loads may run ahead are those of the program.
 */
import { inferRegion, loopScope, type Types } from '../ir/infer.js';
import type { Loop, Name, Operator, Program, Region, Statement, Tensor } from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import { isKind, usesOf } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import { assert, defined } from '../util/assert.js';
import type {
  Category,
  NodeClass,
  Point,
  WorkCall,
  WorkInput,
  WorkKernel,
  Workload,
  WorkNode,
  WorkPart,
} from './workload.js';

export type LoweringExtents = Omit<Point, 'schedule' | 'sockets'>;

/** Activations count as bf16, as the machines hold them; the interpreter's are f32. */
const activationScale = 0.5;

export function lowerProgram(program: Program, extents: LoweringExtents): Workload {
  const { batch, context, promptTokens: rows = batch } = extents;
  assert(extents.promptTokens === undefined || batch === 1, 'a prompt is of one sequence');
  assert(rows <= program.limits.rows, 'the rows fit the limits of the program');
  const kernels = new Map<Name, WorkKernel>();
  const layers = new Set(program.calls.flatMap(({ origin }) => (origin.layer === undefined ? [] : [origin.layer])));
  for (const kernel of program.kernels) {
    const decoder = program.calls.some(
      ({ kernel: name, origin }) => name === kernel.name && origin.layer !== undefined,
    );
    const types = new Map(kernel.params.map(({ name, tensor }) => [name, tensor]));
    kernels.set(
      kernel.name,
      new KernelLowering(extents, decoder && layers.size > 0).kernel(kernel.name, kernel.body, types),
    );
  }
  const calls = program.calls.map(({ kernel, origin }): WorkCall => {
    const layer = origin.layer === undefined ? {} : { layer: origin.layer };
    return { kernel: defined(kernels.get(kernel), kernel), ...layer };
  });
  const tokens = Math.max(1, ...calls.map(({ kernel }) => kernel.repeat));
  const { name, schedule, sockets } = program;
  return { name, schedule, sockets, batch, context, calls, tokens, residentBytes: residentBytes(program, extents) };
}

/** Weights and caches of one socket, caches at the batch and context that are simulated. */
function residentBytes(program: Program, { batch, context }: LoweringExtents): number {
  let bytes = 0;
  for (const { tensor, origin } of program.values) {
    if (origin.kind === 'checkpoint') bytes += tensorBytes(tensor, program.limits);
    if (origin.kind !== 'state' || tensor.shape.length !== 4) continue;
    const scale = (batch / program.limits.slots) * (context / program.limits.context);
    bytes += tensorBytes(tensor, program.limits) * scale;
  }
  return bytes;
}

interface NodeScope {
  readonly types: Types;
  /** Carried names of a loop body, and what each becomes. */
  readonly carried: ReadonlyMap<Name, Name>;
  readonly stageOf: ReadonlyMap<Statement, number>;
  /** Part of a decoder layer. */
  readonly decoder: boolean;
}

/** The stage of the region's plan that each statement is in. */
function stageOf(region: Region): Map<Statement, number> {
  const found = new Map<Statement, number>();
  let next = 0;
  region.plan?.stages.forEach(({ statements }, stage) => {
    for (let i = 0; i < statements; i++) found.set(defined(region.statements[next++], 'statement of a stage'), stage);
  });
  return found;
}

class KernelLowering {
  constructor(
    private readonly extents: LoweringExtents,
    private readonly decoder: boolean,
  ) {}

  kernel(name: Name, body: Region, types: Types): WorkKernel {
    const token = body.statements.find((statement): statement is Loop => statement.kind === 'loop');
    if (token?.over === 'token' && body.statements.length === 1) {
      return { name, parts: this.parts(token.body, loopScope(token, types)), repeat: token.trip };
    }
    return { name, parts: this.parts(body, types), repeat: 1 };
  }

  /** Loops are parts of their own; what stands between them runs once. */
  private parts(region: Region, outer: Types): WorkPart[] {
    const types = inferRegion(region, outer);
    const parts: WorkPart[] = [];
    let straight: Operator[] = [];
    const flush = (): void => {
      if (straight.length > 0) {
        parts.push({
          nodes: this.nodes(straight, { types, carried: new Map(), stageOf: stageOf(region), decoder: this.decoder }),
          trip: 1,
          ahead: 'machine',
        });
      }
      straight = [];
    };
    for (const statement of region.statements) {
      if (statement.kind !== 'loop') {
        straight.push(statement);
        continue;
      }
      flush();
      parts.push(this.loop(statement, types));
    }
    flush();
    return parts;
  }

  private loop(loop: Loop, outer: Types): WorkPart {
    const operators = loop.body.statements.map(asOperator);
    const types = inferRegion(loop.body, loopScope(loop, outer));
    const carried = new Map<Name, Name>();
    for (const binding of loop.bindings) if (binding.kind === 'carried') carried.set(binding.name, binding.next);
    const ahead = loop.pipeline === undefined ? 0 : loop.pipeline.depth * loop.pipeline.tileBytes;
    return {
      nodes: this.nodes(operators, { types, carried, stageOf: stageOf(loop.body), decoder: true }),
      trip: loop.trip,
      ahead,
    };
  }

  private nodes(operators: readonly Operator[], scope: NodeScope): WorkNode[] {
    const written = new Map<Name, number>();
    const last = new Map<Name, number>();
    operators.forEach((operator, index) => {
      for (const { name, access } of usesOf(operator)) if (access !== 'read') last.set(name, index);
    });
    return operators.map((operator, index) => {
      const inputs: WorkInput[] = [];
      for (const { name } of usesOf(operator).filter(({ access }) => access !== 'write')) {
        const next = scope.carried.get(name);
        const mode = modeOf(operator, name);
        const maker = written.get(name);
        if (maker !== undefined) inputs.push({ node: maker, distance: 0, mode });
        else if (next !== undefined) inputs.push({ node: defined(last.get(next), next), distance: 1, mode });
      }
      for (const { name, access } of usesOf(operator)) if (access !== 'read') written.set(name, index);
      return this.node(operator, scope, inputs, operators);
    });
  }

  private node(operator: Operator, scope: NodeScope, inputs: WorkInput[], siblings: readonly Operator[]): WorkNode {
    const typeOf = (name: Name): Tensor => defined(scope.types.get(name), name);
    const { batch, context, promptTokens: rows = batch } = this.extents;
    const at = { rows, samples: batch, sequences: batch, context };
    const raw = definitionOf(operator.kind).cost(operator, typeOf, at);
    const cost = { ...raw, activationBytes: raw.activationBytes * activationScale };
    const kind = classOf(operator);
    const result = usesOf(operator).find(({ access }) => access !== 'read');
    const heads = isKind(operator, 'attention') ? keyHeads(typeOf(operator.reads.keys)) : 1;
    const base: WorkNode = {
      name: result?.name ?? operator.kind,
      ...(isKind(operator, 'linear') ? { format: typeOf(operator.reads.weight).dtype } : {}),
      kind,
      category: scope.decoder ? categoryOf(operator, siblings) : 'other',
      cost,
      stage: scope.stageOf.get(operator) ?? 0,
      rows: result !== undefined && typeOf(result.name).shape[0] === 'samples' ? batch : rows,
      streams: isKind(operator, 'attention') ? heads * batch : 1,
      ...(isKind(operator, 'attention') ? { queries: (rows / batch) * (operator.attributes.heads / heads) } : {}),
      inputs,
    };
    if (isKind(operator, 'allReduce') || isKind(operator, 'allGather')) {
      const bytes = tensorBytes(typeOf(operator.writes.y), at) * activationScale;
      const { sockets } = operator.attributes;
      return { ...base, collective: { kind: isKind(operator, 'allReduce') ? 'sum' : 'gather', sockets, bytes } };
    }
    return isEpilogue(operator, siblings) ? { ...base, epilogue: true } : base;
  }
}

/** Of a cache of keys. */
function keyHeads({ shape: [, heads] }: Tensor): number {
  return typeof heads === 'number' ? heads : 1;
}

function asOperator(statement: Statement): Operator {
  assert(statement.kind !== 'loop', 'a loop over layers holds operators only');
  return statement;
}

/** Operands of which no part is of use alone are needed whole. */
function modeOf(operator: Operator, name: Name): WorkInput['mode'] {
  const { split } = definitionOf(operator.kind);
  switch (split.kind) {
    case 'features': {
      const reads = operator.reads as Readonly<Record<string, Name>>;
      return split.whole.some((operand) => reads[operand] === name) ? 'whole' : 'stream';
    }
    case 'sockets':
      return 'stream';
    case 'replicated':
    case 'heads':
    case 'single':
      return 'whole';
    default:
      return split satisfies never;
  }
}

function classOf(operator: Operator): NodeClass {
  switch (operator.kind) {
    case 'linear':
      return 'linear';
    case 'attention':
      return 'attention';
    case 'rope':
    case 'appendKv':
      return 'cache';
    case 'allReduce':
    case 'allGather':
      return 'collective';
    case 'sample':
      return 'sampling';
    case 'embed':
    case 'appendToken':
    case 'ropeTable':
    case 'rmsNorm':
    case 'siluMul':
    case 'geluMul':
    case 'add':
    case 'gatherRows':
    case 'softcap':
    case 'advance':
      return 'elementwise';
    default:
      return operator satisfies never;
  }
}

/** The columns of the published breakdown of a GPU's token. */
function categoryOf(operator: Operator, siblings: readonly Operator[]): Category {
  switch (classOf(operator)) {
    case 'linear':
      return 'gemm';
    case 'attention':
    case 'cache':
      return 'attention';
    case 'collective':
      return 'all-reduce';
    case 'sampling':
      return 'other';
    case 'elementwise':
      return isEpilogue(operator, siblings) ? 'all-reduce' : 'elementwise';
  }
}

/** A residual add behind its all-reduce is done where the sum arrives, a rotation where the projection is. */
function isEpilogue(operator: Operator, siblings: readonly Operator[]): boolean {
  if (isKind(operator, 'rope')) return true;
  if (!isKind(operator, 'add')) return false;
  const reads = [operator.reads.a, operator.reads.b];
  return siblings.some((sibling) => isKind(sibling, 'allReduce') && reads.includes(sibling.writes.y));
}
