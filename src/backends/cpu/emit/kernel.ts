/**
 * One kernel -> one C function that all workers run. Statements become calls of support kernels, stages end with a
 * hand-off as the plan says, loops become loops: stacked names advance by a constant stride, carried names alternate
 * between their copies.
 */
import { inferKernel, inferRegion, loopScope } from '../../../ir/infer.js';
import type { Kernel, Loop, Name, Program, Region, Stage, Statement, Tensor } from '../../../ir/program.js';
import { formatTensor } from '../../../ir/tensor.js';
import { usesOf } from '../../../ir/visit.js';
import { divisionOf, kvHeadsOf } from '../../../passes/plan-stages.js';
import { assert, defined } from '../../../util/assert.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import { bytesAtLimits, type Allocator } from '../memory-map.js';
import { emitters } from './operators.js';
import { emitPrefetch, type Prefetch } from './prefetch.js';
import { OperatorContext } from './scope.js';

export interface KernelEmission {
  readonly program: Program;
  readonly writer: CodeWriter;
  /** Memory of all workers, and each worker's own. */
  readonly scratch: Allocator;
  readonly own: Allocator;
  /** Bytes between the members of the stack that a parameter is given. */
  readonly strideOf: (param: Name) => number;
}

/** Names of one scope, and what C calls them. */
interface Names {
  readonly c: Map<Name, string>;
  /** For names that hold stacks: bytes between the members. */
  readonly strides: Map<Name, number>;
  /** For names of a loop body: bytes from this iteration's member to the next one's. */
  readonly steps: Map<Name, number>;
  readonly types: ReadonlyMap<Name, Tensor>;
}

/** @param symbol the C name of the function */
export function emitKernel(kernel: Kernel, symbol: string, emission: KernelEmission): void {
  const { writer } = emission;
  const params = kernel.params.map(({ access, name, tensor }) => `${access} ${name}: ${formatTensor(tensor)}`);
  writer.line(`/* kernel ${kernel.name}(${params.join(', ')}) */`);
  writer.block(`static void ${symbol}(struct worker *me, const uint64_t *arguments)`, () => {
    const names: Names = { c: new Map(), strides: new Map(), steps: new Map(), types: inferKernel(kernel) };
    const dims = new Set(dimensionsOf(kernel.body, names.types));
    for (const dim of ['rows', 'samples'] as const) {
      if (dims.has(dim)) writer.line(`const int ${dim} = me->engine->${dim};`);
    }
    kernel.params.forEach(({ name, tensor, access }, index) => {
      names.c.set(name, name);
      if (tensor.shape.length > 1) names.strides.set(name, emission.strideOf(name));
      const type = access === 'read' ? `const ${elementType(tensor)}` : elementType(tensor);
      writer.line(`${type} *${name} = argument(me, arguments, ${index});`);
    });
    emitRegion(kernel.body, names, '', emission);
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

function emitRegion(region: Region, names: Names, prefix: string, emission: KernelEmission, prefetch?: Prefetch): void {
  const plan = defined(region.plan, 'a plan of the region');
  declareLocals(region, names, prefix, emission);
  let next = 0;
  plan.stages.forEach((stage, index) => {
    const statements = region.statements.slice(next, next + stage.statements);
    next += stage.statements;
    const isLast = index === plan.stages.length - 1;
    emitStage(stage, statements, region, names, emission, isLast);
    // A loop ends with the hand-off of its last iteration.
    if (stage.split === 'loop' || !plan.handOffs.some(({ from }) => from === index)) return;
    if (prefetch !== undefined) emitPrefetch(prefetch, index, emission.writer);
    if (isLast && prefetch?.loop.until !== undefined) emission.writer.line('note_abort(me);');
    emission.writer.line('hand_off(me);');
  });
}

function emitStage(
  stage: Stage,
  statements: readonly Statement[],
  region: Region,
  names: Names,
  emission: KernelEmission,
  isLast: boolean,
): void {
  const { writer, program, own } = emission;
  const plan = defined(region.plan, 'a plan of the region');
  const kvHeads = kvHeadsOf(region.statements, names.types)?.count;
  const emit = (): void => {
    for (const statement of statements) {
      if (statement.kind === 'loop') {
        emitLoop(statement, names, emission, isLast);
        continue;
      }
      const division = divisionOf(statement, stage, plan, names.types);
      const scope = { program, types: names.types, names: names.c, kvHeads, own };
      const context = new OperatorContext(scope, division, writer);
      // Kind and operator agree; the table of emitters has one for each.
      (emitters[statement.kind] as (operator: Statement, at: OperatorContext) => void)(statement, context);
    }
  };
  writer.line(`/* stage ${stage.name} */`);
  if (stage.split !== 'heads') {
    emit();
    return;
  }
  writer.block('', () => {
    writer.line(`const struct range heads = share(me, ${defined(kvHeads, 'key/value heads')});`);
    emit();
  });
}

/** Memory for what this region writes and nobody outside has given a place. */
function declareLocals(region: Region, names: Names, prefix: string, emission: KernelEmission): void {
  const replicated = new Set(region.plan?.replicated);
  for (const { name, access } of region.statements.flatMap(usesOf)) {
    if (access !== 'write' || names.c.has(name)) continue;
    const tensor = defined(names.types.get(name), `type of ${name}`);
    const bytes = bytesAtLimits(tensor, emission.program);
    const local = `${prefix}${name}`;
    const [space, allocator] = replicated.has(name) ? ['own', emission.own] : ['scratch', emission.scratch];
    names.c.set(name, local);
    emission.writer.line(
      `${elementType(tensor)} *${local} = ${space}(me, ${allocator.take(bytes)}); /* ${formatTensor(tensor)} */`,
    );
  }
}

function emitLoop(loop: Loop, outer: Names, emission: KernelEmission, isLast: boolean): void {
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
      emitRegion(loop.body, inner, prefix, emission, { loop, names: inner.c, steps: inner.steps, types });
      if (loop.until === undefined) return;
      writer.line(`++${loop.over};`);
      const count = String(defined(types.get(loop.until)?.shape[0], 'count of samples'));
      writer.line(`if (should_stop(me, ${defined(inner.c.get(loop.until), 'until')}, ${count})) break;`);
    },
  );
  emitFinals(loop, prefix, outer, types, emission, isLast);
}

/** The double buffers of carried names. */
function emitCopies(loop: Loop, prefix: string, types: ReadonlyMap<Name, Tensor>, emission: KernelEmission): void {
  for (const binding of loop.bindings) {
    if (binding.kind !== 'carried') continue;
    const buffer = loop.pipeline?.buffers.find(({ name }) => name === binding.name);
    assert(buffer !== undefined, `no buffer for carried ${binding.name}`);
    const tensor = defined(types.get(binding.name), binding.name);
    const places = Array.from({ length: buffer.copies }, () => `scratch(me, ${emission.scratch.take(buffer.bytes)})`);
    const variable = `${prefix}${binding.name}_copies`;
    emission.writer.line(`${elementType(tensor)} *const ${variable}[${buffer.copies}] = {${places.join(', ')}};`);
  }
}

function emitBinding(
  binding: Loop['bindings'][number],
  loop: Loop,
  prefix: string,
  outer: Names,
  inner: Names,
  emission: KernelEmission,
): void {
  const { writer } = emission;
  const outside = defined(outer.c.get(binding.outer), `C name of ${binding.outer}`);
  const tensor = defined(inner.types.get(binding.name), `type of ${binding.name}`);
  const type = elementType(tensor);
  switch (binding.kind) {
    case 'invariant': {
      inner.c.set(binding.name, outside);
      const stride = outer.strides.get(binding.outer);
      if (stride !== undefined) inner.strides.set(binding.name, stride);
      return;
    }
    case 'stacked': {
      const local = `${prefix}${binding.name}`;
      const stride = outer.strides.get(binding.outer) ?? bytesAtLimits(tensor, emission.program);
      const [constness, bytes] = binding.access === 'read' ? ['const ', 'const uint8_t *'] : ['', 'uint8_t *'];
      writer.line(
        `${constness}${type} *${local} = (${constness}${type} *)((${bytes})${outside} + (size_t)${loop.over} * ${stride});`,
      );
      inner.c.set(binding.name, local);
      inner.steps.set(binding.name, stride);
      return;
    }
    case 'carried': {
      const [now, next] = [`${prefix}${binding.name}`, `${prefix}${binding.next}`];
      const copies = `${now}_copies`;
      const count = defined(
        loop.pipeline?.buffers.find(({ name }) => name === binding.name),
        `buffer of ${binding.name}`,
      ).copies;
      writer.line(`const ${type} *${now} = ${loop.over} == 0 ? ${outside} : ${copies}[${loop.over} % ${count}];`);
      const copy = `${copies}[(${loop.over} + 1) % ${count}]`;
      const final = binding.final === undefined ? undefined : outer.c.get(binding.final);
      // Where the last iteration is known, it writes its result where that belongs.
      const target =
        final === undefined || loop.until !== undefined
          ? copy
          : `${loop.over} == ${loop.trip - 1} ? ${final} : ${copy}`;
      writer.line(`${type} *${next} = ${target};`);
      inner.c.set(binding.name, now);
      inner.c.set(binding.next, next);
      return;
    }
    default:
      binding satisfies never;
  }
}

/** After a loop that can end early, what it carried is copied to where it is read. */
function emitFinals(
  loop: Loop,
  prefix: string,
  outer: Names,
  types: ReadonlyMap<Name, Tensor>,
  emission: KernelEmission,
  isLast: boolean,
): void {
  if (loop.until === undefined) return;
  let copied = false;
  for (const binding of loop.bindings) {
    if (binding.kind !== 'carried' || binding.final === undefined) continue;
    const bytes = bytesAtLimits(defined(types.get(binding.name), binding.name), emission.program);
    const copies = `${prefix}${binding.name}_copies`;
    const target = defined(outer.c.get(binding.final), binding.final);
    emission.writer.line(`if (me->index == 0) memcpy(${target}, ${copies}[${loop.over} % 2], ${bytes});`);
    copied = true;
  }
  if (copied && !isLast) emission.writer.line('hand_off(me);');
}

/** The C type of a tensor's elements; matrices of weights are bytes, in tiles. */
function elementType(tensor: Tensor): string {
  if (tensor.role === 'weight' && tensor.dtype !== 'f32') return 'uint8_t';
  switch (tensor.dtype) {
    case 'f32':
      return 'float';
    case 'i32':
      return 'int32_t';
    case 'bf16':
    case 'f16':
      return 'uint16_t';
    case 'q8_0':
    case 'q4_0':
      return 'uint8_t';
    default:
      return tensor.dtype satisfies never;
  }
}
