/**
 * One kernel -> two functions of the same shape: what the compute warps do, and what the warp that fetches weights does
 * meanwhile. Stages end with a hand-off as the plan says; loops become loops: stacked names advance by a constant stride,
 * carried names alternate between their copies.
 */
import { inferKernel, inferRegion, loopScope } from '../../../ir/infer.js';
import type { Binding, Kernel, Loop, Name, Operator, OperatorKind, Region, Tensor } from '../../../ir/program.js';
import { formatTensor } from '../../../ir/tensor.js';
import { isKind, operatorsOf, statementsByStage, usesOf } from '../../../ir/visit.js';
import type { RingCode } from '../../../passes/ring-code.js';
import { assert, defined } from '../../../util/assert.js';
import { bytesAtLimits } from '../../memory-map.js';
import type { KernelEmission } from './emission.js';
import { cName, dimension, elementType, type Names } from './names.js';
import type { StageScope } from './scope.js';
import { comment, emitStage, emitStream } from './stage.js';

/** What only the compute warps do, and what only the other warp does. */
type Side = 'compute' | 'stream';
type Sides = Pick<RingCode, Side>;

/** Operators that take no more than LIGHT_BYTES of engine.cuh. */
const lightOperators: ReadonlySet<OperatorKind> = new Set<OperatorKind>([
  ...(['appendToken', 'embed', 'ropeTable', 'rmsNorm', 'rope', 'appendKv', 'gatherRows', 'advance'] as const),
  ...(['siluMul', 'geluMul', 'add', 'softcap'] as const),
]);

interface Walk {
  readonly side: Side;
  readonly emission: KernelEmission;
  /** `decoder/layer`: for hand-offs. */
  readonly where: string;
}

export interface EmittedKernel extends Sides {
  /** It has no ring, no warp for it, no rows, and its blocks wait for nobody: there is room for those of others. */
  readonly isLight: boolean;
}

/** @param symbol the name of the __global__ function. @param table the kernel's table of arguments */
export function emitKernel(
  kernel: Kernel,
  symbol: string,
  table: string,
  { needOwn, numberOf, ...rest }: KernelEmission,
): EmittedKernel {
  let isLight = [...operatorsOf(kernel.body)].every(({ kind }) => lightOperators.has(kind));
  const emission: KernelEmission = {
    ...rest,
    needOwn: (bytes) => {
      isLight &&= bytes === 0;
      needOwn(bytes);
    },
    numberOf: (place) => {
      isLight = false;
      return numberOf(place);
    },
  };
  const { writer, ring } = emission;
  const params = kernel.params.map(({ access, name, tensor }) => `${access} ${name}: ${formatTensor(tensor)}`);
  const streams = hasMatrices(kernel.body);
  comment(writer, `kernel ${kernel.name}(${params.join(', ')})`);
  const emit = (side: Side) =>
    ring.collect(() => emitSide(kernel, symbol, table, { side, emission, where: kernel.name }));
  const compute = emit('compute');
  const stream = streams ? emit('stream') : [];
  const macro = isLight ? 'LIGHT_KERNEL' : 'KERNEL';
  writer.block(`${macro} ${symbol}(const struct launch launch)`, () => {
    writer.line('struct worker me = begin_launch(launch);');
    if (!isLight) {
      writer.line('ring_init(&me);');
      writer.block('if (me.warp == COMPUTE_WARPS)', () => {
        if (streams) {
          writer.line(`${symbol}_stream(&me);`);
          writer.line('ring_drain(&me);');
        }
        writer.line('return;');
      });
    }
    writer.line('begin_compute(&me);');
    writer.line(`${symbol}_compute(&me);`);
    if (!isLight) writer.line('ring_stop(&me);');
    writer.line('end_launch(&me);');
  });
  writer.line();
  return { stream, compute, isLight };
}

function hasMatrices(region: Region): boolean {
  return [...operatorsOf(region)].some((operator) => isKind(operator, 'linear'));
}

function emitSide(kernel: Kernel, symbol: string, table: string, walk: Walk): void {
  const { writer, ring, strideOf } = walk.emission;
  writer.block(`DEVICE void ${symbol}_${walk.side}(struct worker *me)`, () => {
    const names: Names = { c: new Map(), strides: new Map(), types: inferKernel(kernel) };
    kernel.params.forEach(({ name, tensor, access }, index) => {
      if (walk.side === 'stream' && tensor.role !== 'weight') return;
      names.c.set(name, cName(name));
      if (tensor.shape.length > 1) names.strides.set(name, strideOf(name));
      const type = `${access === 'read' ? 'const ' : ''}${elementType(tensor)} *`;
      if (used(kernel.body, name, walk.side)) {
        ring.argument(cName(name), type, table, index);
      }
    });
    emitRegion(kernel.body, names, '', walk);
  });
}

/** Whether a side of a region needs a name: the stream only matrices. */
function used(region: Region, name: Name, side: Side): boolean {
  return (
    region.statements.some((statement) => {
      if (statement.kind === 'loop') {
        return statement.bindings.some((binding) => binding.outer === name && used(statement.body, binding.name, side));
      }
      if (side === 'stream') return isKind(statement, 'linear') && statement.reads.weight === name;
      // The compute warps find matrices in the ring.
      return Object.entries(operands(statement)).some(
        ([operand, value]) => value === name && !(statement.kind === 'linear' && operand === 'weight'),
      );
    }) || carriesOut(region, name, side)
  );
}

/** Loops also touch what they bring in and leave behind as such. */
function carriesOut(region: Region, name: Name, side: Side): boolean {
  if (side === 'stream') return false;
  return region.statements.some(
    (statement) =>
      statement.kind === 'loop' &&
      statement.bindings.some(
        (binding) => binding.kind === 'carried' && (binding.outer === name || binding.final === name),
      ),
  );
}

function operands(operator: Operator): Record<string, Name> {
  return { ...operator.reads, ...operator.updates, ...operator.writes };
}

/** The loop that a region is the body of. */
interface Body {
  readonly loop: Loop;
  readonly until: { readonly name: Name; readonly count: string } | undefined;
}

function emitRegion(region: Region, names: Names, prefix: string, walk: Walk, body?: Body): void {
  const { emission, side } = walk;
  const { writer, ring } = emission;
  const plan = defined(region.plan, 'a plan of the region');
  const own = ownNames(region, names);
  if (side === 'compute') declareLocals(region, names, prefix, own, emission);
  statementsByStage(region, plan.stages).forEach((statements, index) => {
    const stage = plan.stages[index]!;
    const loop = statements.find((statement): statement is Loop => statement.kind === 'loop');
    if (loop !== undefined) {
      const isEnd = index === plan.stages.length - 1;
      assert(!isEnd || body?.until === undefined, `the loop over ${body?.loop.over} ends with one inside it`);
      if (side === 'compute' || hasMatrices(loop.body)) emitLoop(loop, names, walk);
      return;
    }
    const operators = statements as readonly Operator[];
    const at: StageScope = { stage, operators, region, names, emission, where: walk.where, ownNames: own };
    if (side === 'stream') {
      emitStream(at);
      return;
    }
    ring.stage(stage.name, () => emitStage(at));
    const number = (): number => emission.numberOf(`${walk.where}, stage ${stage.name}`);
    const isLast = index === plan.stages.length - 1;
    if (isLast && body?.until !== undefined) {
      const { until, loop: outer } = body;
      const name = defined(names.c.get(until.name), until.name);
      const emitted = operators.find((operator) => isKind(operator, 'advance'))?.writes.emitted;
      if (emitted !== undefined) {
        const tokens = defined(names.c.get(emitted), emitted);
        writer.line(`if (me->block == 0) show_tokens(me, ${tokens}, ${until.count}, ${outer.over});`);
      }
      ring.handOffUntil(number(), name, until.count, outer.over);
    } else if (!isLast || body !== undefined) {
      ring.handOff(number());
    }
  });
}

/**
 * Names that only one stage uses and nobody outside sees: those that every block computes whole, and those of one head, which
 * the blocks of its spans compute alike. What a stage divides by features stays where all can reach it.
 */
function ownNames(region: Region, names: Names): Set<Name> {
  const plan = defined(region.plan, 'a plan of the region');
  const own = new Set(plan.replicated);
  const stagesOf = new Map<Name, Set<number>>();
  const usesByStage = statementsByStage(region, plan.stages).map((statements) => statements.flatMap(usesOf));
  usesByStage.forEach((uses, index) => {
    for (const { name } of uses) stagesOf.set(name, (stagesOf.get(name) ?? new Set()).add(index));
  });
  usesByStage.forEach((uses, index) => {
    if (plan.stages[index]!.split !== 'heads') return;
    for (const { name, access } of uses) {
      if (access === 'write' && !names.c.has(name) && stagesOf.get(name)?.size === 1) own.add(name);
    }
  });
  return own;
}

/** Memory for what this region writes and nobody outside has given a place. */
function declareLocals(
  region: Region,
  names: Names,
  prefix: string,
  own: ReadonlySet<Name>,
  emission: KernelEmission,
): void {
  for (const { name, access } of region.statements.flatMap(usesOf)) {
    if (access !== 'write' || names.c.has(name) || own.has(name)) continue;
    const tensor = defined(names.types.get(name), `type of ${name}`);
    const place = emission.scratch.take(bytesAtLimits(tensor, emission.program));
    const local = cName(`${prefix}${name}`);
    names.c.set(name, local);
    const type = `${elementType(tensor)} *`;
    emission.writer.line(`${type}${local} = (${type})scratch(me, ${place}); /* ${formatTensor(tensor)} */`);
  }
}

function emitLoop(loop: Loop, outer: Names, walk: Walk): void {
  const { emission, side } = walk;
  const types = inferRegion(loop.body, loopScope(loop, outer.types));
  const inner: Names = { c: new Map(), strides: new Map(), types };
  const prefix = `${loop.over}_`;
  const copies = side === 'compute' ? takeCopies(loop, emission) : new Map<Name, Copies>();
  const mayEnd = loop.until !== undefined && side === 'compute';
  emission.ring.loop({ over: loop.over, trip: loop.trip, mayEnd }, () => {
    for (const binding of loop.bindings) emitBinding(binding, { loop, prefix, outer, inner, copies, walk });
    const { until } = loop;
    const count = until === undefined ? undefined : dimension(defined(types.get(until)?.shape[0], 'count of samples'));
    const body = {
      loop,
      until: until === undefined || count === undefined ? undefined : { name: until, count },
    };
    emitRegion(loop.body, inner, prefix, { ...walk, where: `${walk.where}/${loop.over}` }, body);
  });
  if (mayEnd) emitFinals(loop, outer, types, copies, walk);
}

/** The copies of a carried name: where the first is, and how many there are of how many bytes. */
interface Copies {
  readonly place: number;
  readonly bytes: number;
  readonly count: number;
}

function takeCopies(loop: Loop, { scratch }: KernelEmission): Map<Name, Copies> {
  const copies = new Map<Name, Copies>();
  for (const binding of loop.bindings) {
    if (binding.kind !== 'carried') continue;
    const buffer = loop.pipeline?.buffers.find(({ name }) => name === binding.name);
    assert(buffer !== undefined, `no buffer for carried ${binding.name}`);
    const bytes = Math.ceil(buffer.bytes / 64) * 64;
    copies.set(binding.name, { place: scratch.take(bytes * buffer.copies), bytes, count: buffer.copies });
  }
  return copies;
}

function copyAt({ place, bytes, count }: Copies, iteration: string): string {
  return `scratch(me, ${place} + (uint64_t)(${iteration} % ${count}) * ${bytes})`;
}

interface LoopScope {
  readonly loop: Loop;
  readonly prefix: string;
  readonly outer: Names;
  readonly inner: Names;
  readonly copies: ReadonlyMap<Name, Copies>;
  readonly walk: Walk;
}

function emitBinding(binding: Binding, at: LoopScope): void {
  const { loop, outer, inner, walk } = at;
  const { ring, program } = walk.emission;
  const outside = outer.c.get(binding.outer);
  // The stream sees only weights.
  if (walk.side === 'stream' && outside === undefined) return;
  const source = defined(outside, `C++ name of ${binding.outer}`);
  const tensor = defined(inner.types.get(binding.name), `type of ${binding.name}`);
  switch (binding.kind) {
    case 'invariant': {
      inner.c.set(binding.name, source);
      const stride = outer.strides.get(binding.outer);
      if (stride !== undefined) inner.strides.set(binding.name, stride);
      return;
    }
    case 'stacked': {
      const local = cName(`${at.prefix}${binding.name}`);
      const stride = outer.strides.get(binding.outer) ?? bytesAtLimits(tensor, program);
      const [constness, bytesType] = binding.access === 'read' ? ['const ', 'const uint8_t *'] : ['', 'uint8_t *'];
      const type = `${constness}${elementType(tensor)} *`;
      inner.c.set(binding.name, local);
      if (!used(loop.body, binding.name, walk.side)) return;
      ring.member(local, { type, bytesType }, source, loop.over, stride);
      return;
    }
    case 'carried':
      emitCarried(binding, source, tensor, at);
      return;
    default:
      binding satisfies never;
  }
}

function emitCarried(
  binding: Extract<Binding, { kind: 'carried' }>,
  source: string,
  tensor: Tensor,
  { loop, prefix, outer, inner, copies, walk }: LoopScope,
): void {
  const { writer } = walk.emission;
  const type = `${elementType(tensor)} *`;
  const [now, next] = [`${prefix}${binding.name}`, `${prefix}${binding.next}`];
  const places = defined(copies.get(binding.name), `copies of ${binding.name}`);
  writer.line(`const ${type}${now} = ${loop.over} == 0 ? ${source} : (const ${type})${copyAt(places, loop.over)};`);
  const copy = `(${type})${copyAt(places, `(${loop.over} + 1)`)}`;
  const final = binding.final === undefined ? undefined : outer.c.get(binding.final);
  // Where the last iteration is known, it writes its result where that belongs.
  const target =
    final === undefined || loop.until !== undefined ? copy : `${loop.over} == ${loop.trip - 1} ? ${final} : ${copy}`;
  writer.line(`${type}${next} = ${target};`);
  inner.c.set(binding.name, now);
  inner.c.set(binding.next, next);
}

/** After a loop that can end early, what it carried is copied to where it is read. */
function emitFinals(
  loop: Loop,
  outer: Names,
  types: ReadonlyMap<Name, Tensor>,
  copies: ReadonlyMap<Name, Copies>,
  { emission, where }: Walk,
): void {
  const { writer, program } = emission;
  const lines = loop.bindings.flatMap((binding) => {
    if (binding.kind !== 'carried' || binding.final === undefined) return [];
    const bytes = bytesAtLimits(defined(types.get(binding.name), binding.name), program);
    const target = defined(outer.c.get(binding.final), binding.final);
    const source = copyAt(defined(copies.get(binding.name), binding.name), loop.over);
    return [`copy_bytes(me, ${target}, ${source}, ${bytes});`];
  });
  if (lines.length === 0) return;
  writer.block('if (me->block == 0)', () => lines.forEach((line) => writer.line(line)));
  emission.ring.handOff(emission.numberOf(`${where}, results of the ${loop.over} loop`));
}
