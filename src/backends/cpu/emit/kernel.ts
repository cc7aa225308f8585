/**
 * One kernel -> one C function that all workers run. Statements become calls of support kernels, stages end with a
 * hand-off as the plan says, loops become loops: stacked names advance by a constant stride, carried names alternate
 * between their copies.
 */
import { inferKernel, inferRegion, loopScope } from '../../../ir/infer.js';
import type { Kernel, Loop, Name, Operator, Region, Stage, Tensor } from '../../../ir/program.js';
import { formatTensor } from '../../../ir/tensor.js';
import { statementsByStage, usesOf } from '../../../ir/visit.js';
import { divisionOf, kvHeadsOf, type Division } from '../../../passes/plan-stages.js';
import { assert, defined } from '../../../util/assert.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import { bytesAtLimits } from '../../memory-map.js';
import { contextBlock } from './attention.js';
import { emitBinding, emitCopies, emitFinals, untilHandOff } from './loop.js';
import { inputForms, type InputForms } from './input-forms.js';
import { cName, elementType, type KernelEmission, type Names } from './names.js';
import { emitters } from './operators.js';
import { emitPrefetch, type Prefetch } from './prefetch.js';
import { dimension, OperatorContext } from './scope.js';

/** Stages of one launch that the engine can number (STAGE_BITS in engine.h). */
const maxStages = 2 ** 20;

function stagesOf(region: Region): number {
  const loops = region.statements.filter((statement): statement is Loop => statement.kind === 'loop');
  const own = defined(region.plan, 'a plan of the region').stages.length;
  return loops.reduce((sum, { trip, body }) => sum + trip * stagesOf(body), own);
}

/** @param symbol the C name of the function */
export function emitKernel(kernel: Kernel, symbol: string, emission: KernelEmission): void {
  const { writer } = emission;
  assert(stagesOf(kernel.body) < maxStages, `kernel ${kernel.name} has too many stages for one launch`);
  const params = kernel.params.map(({ access, name, tensor }) => `${access} ${name}: ${formatTensor(tensor)}`);
  writer.line(`/* kernel ${kernel.name}(${params.join(', ')}) */`);
  writer.block(`static void ${symbol}(struct worker *me, const uint64_t *arguments)`, () => {
    const names: Names = { c: new Map(), strides: new Map(), steps: new Map(), types: inferKernel(kernel) };
    const dims = new Set(dimensionsOf(kernel.body, names.types));
    for (const dim of ['rows', 'samples'] as const) {
      if (dims.has(dim)) writer.line(`const int ${dim} = me->${dim};`);
    }
    kernel.params.forEach(({ name, tensor, access }, index) => {
      names.c.set(name, cName(name));
      if (tensor.shape.length > 1) names.strides.set(name, emission.strideOf(name));
      const type = access === 'read' ? `const ${elementType(tensor)}` : elementType(tensor);
      writer.line(`${type} *${cName(name)} = argument(me, arguments, ${index});`);
    });
    if (emission.profile !== undefined) writer.line(emission.profile.begin());
    emitRegion(kernel.body, names, '', { ...emission, symbol });
  });
  writer.line();
}

/** Leading dimensions of what operators write: the run-time counts that the code asks for. */
function* dimensionsOf(region: Region, types: ReadonlyMap<Name, Tensor>): Generator {
  for (const statement of region.statements) {
    if (statement.kind === 'loop') {
      const inner = inferRegion(statement.body, loopScope(statement, types));
      if (statement.until !== undefined) yield inner.get(statement.until)?.shape[0];
      yield* dimensionsOf(statement.body, inner);
    } else {
      const written = usesOf(statement).filter(({ access }) => access === 'write');
      // What updates a state runs over the rows of what it reads.
      const counted = written.length > 0 ? written : usesOf(statement);
      for (const { name } of counted) yield types.get(name)?.shape[0];
    }
  }
}

/** The loop that a region is the body of. */
interface RegionEmission extends KernelEmission {
  /** The C function. */
  readonly symbol: string;
}

interface Body extends Prefetch {
  readonly untilEnd: string | undefined;
}

function emitRegion(region: Region, names: Names, prefix: string, emission: RegionEmission, body?: Body): void {
  const plan = defined(region.plan, 'a plan of the region');
  declareLocals(region, names, prefix, emission);
  statementsByStage(region, plan.stages).forEach((statements, index) => {
    const stage = plan.stages[index]!;
    const loop = statements.find((statement): statement is Loop => statement.kind === 'loop');
    emission.writer.line(`/* stage ${stage.name} */`);
    if (loop !== undefined) {
      emitLoop(loop, names, emission);
      return;
    }
    const isLast = index === plan.stages.length - 1;
    emitStage(stage, statements as readonly Operator[], region, names, emission, () => {
      if (body !== undefined) emitPrefetch(body, index, emission.writer);
      const end = isLast ? body?.untilEnd : undefined;
      emission.writer.line(end ?? 'hand_off(me);');
      if (emission.profile !== undefined) {
        emission.writer.line(emission.profile.end(emission.symbol, stage.name));
      }
    });
  });
}

/** Chunks are taken until none is left; the end of a stage is the hand-off that the plan wants before the next one. */
function emitStage(
  stage: Stage,
  operators: readonly Operator[],
  region: Region,
  names: Names,
  emission: KernelEmission,
  end: () => void,
): void {
  const { writer } = emission;
  const plan = defined(region.plan, 'a plan of the region');
  const cache = kvHeadsOf(region.statements, names.types);
  const forms = inputForms(operators, names.types, emission);
  const scope = { ...emission, types: names.types, names: names.c, kvHeads: cache?.count, forms };
  const emit = (wanted: (division: Division) => boolean): void => {
    for (const operator of operators) {
      const division = divisionOf(operator, stage, plan, names.types);
      if (!wanted(division)) continue;
      // Kind and operator agree; the table of emitters has one for each.
      const emitter = emitters[operator.kind] as (operator: Operator, at: OperatorContext) => void;
      emitter(operator, new OperatorContext(scope, division, writer));
    }
  };
  const replicates = operators.some((operator) => divisionOf(operator, stage, plan, names.types) === 'replicated');
  writer.line(`begin_stage(me, ${chunksOf(stage, cache)});`);
  writer.block('while (claim(me))', () => {
    if (stage.split === 'heads') {
      writer.line(`const struct range heads = part_of(me, ${defined(cache, 'key/value heads').count});`);
    }
    if (stage.split === 'context') {
      writer.line(`const struct attention_unit unit = context_unit(me, ${defined(cache, 'key/value heads').count});`);
    }
    // Only while it holds a chunk may a worker look at data, so that its own copies are made here, too.
    if (replicates || forms.int8.size + forms.bf16.size > 0) {
      writer.block('if (me->done == 0)', () => {
        emit((division) => division === 'replicated');
        emitForms(forms, names, writer);
      });
    }
    emit((division) => division !== 'replicated');
  });
  end();
}

/** Makes the forms of what matrices read, one after the other. */
function emitForms(forms: InputForms, names: Names, writer: CodeWriter): void {
  for (const [form, make] of [
    ['int8', 'quantize_rows'],
    ['bf16', 'round_rows'],
  ] as const) {
    for (const [name, offset] of forms[form]) {
      const [rows, width] = defined(names.types.get(name), name).shape;
      const x = defined(names.c.get(name), `C name of ${name}`);
      const shape = `${dimension(defined(rows, 'rows'))}, ${dimension(defined(width, 'width'))}`;
      writer.line(`${make}(me, ${offset}, ${x}, ${shape});`);
    }
  }
}

function chunksOf(stage: Stage, cache: ReturnType<typeof kvHeadsOf>): string {
  switch (stage.split) {
    case 'features':
      return 'feature_chunks(me)';
    case 'heads':
      return `head_chunks(me, ${defined(cache, 'key/value heads').count})`;
    case 'context': {
      const { count, context } = defined(cache, 'key/value heads');
      return `context_chunks(me, ${count}, ${Math.ceil(context / contextBlock)})`;
    }
    case 'single':
    case 'loop':
      return '1';
    default:
      return stage.split satisfies never;
  }
}

/** Memory for what this region writes and nobody outside has given a place. */
function declareLocals(region: Region, names: Names, prefix: string, emission: KernelEmission): void {
  const replicated = new Set(region.plan?.replicated);
  for (const { name, access } of region.statements.flatMap(usesOf)) {
    if (access !== 'write' || names.c.has(name)) continue;
    const tensor = defined(names.types.get(name), `type of ${name}`);
    const bytes = bytesAtLimits(tensor, emission.program);
    const local = cName(`${prefix}${name}`);
    const [space, allocator] = replicated.has(name) ? ['own', emission.own] : ['scratch', emission.scratch];
    names.c.set(name, local);
    emission.writer.line(
      `${elementType(tensor)} *${local} = ${space}(me, ${allocator.take(bytes)}); /* ${formatTensor(tensor)} */`,
    );
  }
}

function emitLoop(loop: Loop, outer: Names, emission: RegionEmission): void {
  // A scope of its own: a region may hold several loops over the same thing.
  emission.writer.block('', () => emitScopedLoop(loop, outer, emission));
}

function emitScopedLoop(loop: Loop, outer: Names, emission: RegionEmission): void {
  const { writer } = emission;
  const types = inferRegion(loop.body, loopScope(loop, outer.types));
  const inner: Names = { c: new Map(), strides: new Map(), steps: new Map(), types };
  const prefix = `${loop.over}_`;
  emitCopies(loop, prefix, types, emission);
  if (loop.until !== undefined) writer.line(`int ${loop.over} = 0;`);
  const start = loop.until === undefined ? `int ${loop.over} = 0` : '';
  writer.block(
    `for (${start}; ${loop.over} < ${loop.trip};${loop.until === undefined ? ` ++${loop.over}` : ''})`,
    () => {
      for (const binding of loop.bindings) emitBinding(binding, loop, prefix, outer, inner, emission);
      const { until } = loop;
      const untilEnd = until === undefined ? undefined : untilHandOff(loop, until, inner, prefix);
      emitRegion(loop.body, inner, prefix, emission, { loop, names: inner.c, steps: inner.steps, types, untilEnd });
      if (until === undefined) return;
      writer.line(`++${loop.over};`);
      writer.line('if (me->last_iteration) break;');
    },
  );
  emitFinals(loop, prefix, outer, types, emission);
}
