/**
 * The rules of kernel bodies: parameters are used as they are declared, names are written once and before they are read,
 * loop bindings bring in all that a body needs, types fit, segments and plans add up.
 */
import { TypeMismatch } from '../ops/definition.js';
import { definitionOf, operators } from '../ops/index.js';
import { messageOf } from '../util/errors.js';
import { inferRegion, loopScope, type Types } from './infer.js';
import type { Access, Kernel, Loop, Name, Operator, Region, Tensor } from './program.js';
import { formatTensor, sameTensor } from './tensor.js';
import { rule, VerifyError, type Where } from './verify-error.js';
import { usesOf, type Use } from './visit.js';

const localName = /^[a-z][a-z0-9_]*$/;

/** A name that a scope is given: a parameter, or the inner name of a loop binding. */
interface Declared {
  readonly name: Name;
  readonly access: Access;
}

/** @throws VerifyError on the first rule that does not hold. */
export function verifyKernel(kernel: Kernel): void {
  const where: Where = { kernel: kernel.name };
  rule(localName.test(kernel.name), where, 'not a name of a kernel');
  verifyScope(kernel.body, kernel.params, new Set(), where);
  const given = kernel.params.filter(({ access }) => access !== 'write');
  const types = verifyTypes(kernel.body, new Map(given.map(({ name, tensor }) => [name, tensor])), where);
  for (const { name, tensor, access } of kernel.params) {
    if (access !== 'write') continue;
    const found = types.get(name)!;
    const fits = sameTensor(found, tensor);
    rule(fits, { ...where, param: name }, `declared as ${describe(tensor)}, is written as ${describe(found)}`);
  }
}

function describe(tensor: Tensor): string {
  return `${tensor.role} ${formatTensor(tensor)}`;
}

function at(where: Where, index: number): Where {
  return { ...where, statement: [...(where.statement ?? []), index] };
}

/** Names only; `optional` may stay unused. */
function verifyScope(region: Region, declared: readonly Declared[], optional: ReadonlySet<Name>, where: Where): void {
  const access = new Map<Name, Access>();
  for (const item of declared) {
    rule(localName.test(item.name), { ...where, param: item.name }, 'not a name of a parameter');
    rule(!access.has(item.name), { ...where, param: item.name }, 'the name is taken twice');
    access.set(item.name, item.access);
  }
  const used = new Set<string>();
  const known = new Set(declared.filter((item) => item.access !== 'write').map(({ name }) => name));
  region.statements.forEach((statement, index) => {
    const here = at(where, index);
    if (statement.kind === 'loop') verifyLoop(statement, here);
    else verifyOperator(statement, here);
    const uses = usesOf(statement);
    verifyNoAlias(uses, here);
    for (const use of uses) {
      verifyUse(use, access, known, here);
      used.add(use.name).add(`${use.access} ${use.name}`);
    }
    for (const use of uses) if (use.access === 'write') known.add(use.name);
  });
  for (const item of declared) {
    const enough = used.has(item.access === 'read' ? item.name : `${item.access} ${item.name}`);
    rule(enough || optional.has(item.name), { ...where, param: item.name }, `nothing does the declared ${item.access}`);
  }
  verifyPlan(region, where);
}

function verifyUse(use: Use, access: ReadonlyMap<Name, Access>, known: ReadonlySet<Name>, where: Where): void {
  const declared = access.get(use.name);
  switch (use.access) {
    case 'read':
      rule(known.has(use.name), where, `${use.name} is read before it is written`);
      return;
    case 'update':
      rule(declared === 'update', where, `${use.name} is updated, but is not a parameter that may be`);
      return;
    case 'write':
      rule(localName.test(use.name), where, `not a name: ${use.name}`);
      rule(declared === undefined || declared === 'write', where, `${use.name} is written, but is declared as read`);
      rule(!known.has(use.name), where, `${use.name} is written a second time`);
      return;
    default:
      return use.access satisfies never;
  }
}

/** What one statement changes it may not also see under another operand. */
function verifyNoAlias(uses: readonly Use[], where: Where): void {
  const changed = new Set(uses.filter(({ access }) => access !== 'read').map(({ name }) => name));
  const seen = new Set<Name>();
  for (const { name } of uses) {
    rule(!seen.has(name) || !changed.has(name), where, `${name} is changed, and is another operand too`);
    seen.add(name);
  }
}

function verifyOperator(operator: Operator, where: Where): void {
  rule(Object.hasOwn(operators, operator.kind), where, `there is no operator ${operator.kind}`);
  const definition = definitionOf(operator.kind);
  const check = (group: string, given: object, wanted: readonly string[], optional: readonly string[] = []): void => {
    const missing = wanted.find((key) => !Object.hasOwn(given, key));
    const extra = Object.keys(given).find((key) => !wanted.includes(key) && !optional.includes(key));
    rule(missing === undefined, where, `${operator.kind} lacks ${group} ${missing ?? ''}`);
    rule(extra === undefined, where, `${operator.kind} has no ${group} ${extra ?? ''}`);
  };
  check('operand', operator.reads, definition.reads, definition.optionalReads);
  check('operand', operator.updates, definition.updates);
  check('operand', operator.writes, definition.writes);
  check('attribute', operator.attributes, Object.keys(definition.attributes));
  for (const [name, value] of Object.entries(operator.attributes)) {
    const fits = typeof value === definition.attributes[name] && (typeof value !== 'number' || Number.isFinite(value));
    rule(fits, where, `attribute ${name} is not a ${definition.attributes[name] ?? 'value'}`);
  }
}

function verifyLoop(loop: Loop, where: Where): void {
  rule(Number.isSafeInteger(loop.trip) && loop.trip > 0, where, `a loop of ${loop.trip} iterations`);
  rule(localName.test(loop.over), where, `not a name: ${loop.over}`);
  const declared = loop.bindings.map((binding): Declared => {
    return binding.kind === 'carried' ? { name: binding.name, access: 'read' } : binding;
  });
  const carried = loop.bindings.filter((binding) => binding.kind === 'carried');
  const names = new Set(carried.map(({ name }) => name));
  verifyScope(loop.body, declared, names, where);
  const written = new Set(
    loop.body.statements.flatMap(usesOf).flatMap((use) => (use.access === 'write' ? [use.name] : [])),
  );
  const nexts = carried.map(({ next }) => next);
  for (const next of nexts) rule(written.has(next), where, `${next} is carried on, but the body does not write it`);
  rule(new Set(nexts).size === nexts.length, where, 'one value is carried on as two');
  const inside =
    loop.until === undefined || written.has(loop.until) || declared.some(({ name }) => name === loop.until);
  rule(inside, where, `until ${loop.until ?? ''}: the body has no such name`);
  verifyPipeline(loop, where);
}

function verifyPipeline({ pipeline, bindings, body }: Loop, where: Where): void {
  if (pipeline === undefined) return;
  const bound = new Map(bindings.map((binding) => [binding.name, binding.kind]));
  const stages = body.plan?.stages.length ?? 0;
  for (const { name, copies, bytes } of pipeline.buffers) {
    rule(bound.get(name) === 'carried', where, `buffer ${name} is not a carried value`);
    rule(copies >= 1 && bytes >= 0, where, `buffer ${name} has ${copies} copies of ${bytes} bytes`);
  }
  for (const { name, stage, bytes } of pipeline.stream) {
    rule(bound.get(name) === 'stacked', where, `streamed ${name} is not a stacked value`);
    rule(stage >= 0 && stage < stages, where, `streamed ${name} is read in stage ${stage} of ${stages}`);
    rule(bytes >= 0, where, `streamed ${name} has ${bytes} bytes`);
  }
  rule(
    pipeline.tileBytes > 0 && pipeline.depth >= 0 && pipeline.slots >= 0,
    where,
    'tiles, depth and slots are negative',
  );
}

/** Segments and stages add up to the statements; hand-offs are between stages that exist. */
function verifyPlan({ statements, segments, plan }: Region, where: Where): void {
  const adds = (parts: readonly { readonly statements: number }[]): boolean =>
    parts.every((part) => Number.isSafeInteger(part.statements) && part.statements > 0) &&
    parts.reduce((sum, part) => sum + part.statements, 0) === statements.length;
  rule(adds(segments), where, `segments do not add up to ${statements.length} statements`);
  for (const { kernel } of segments) rule(localName.test(kernel), where, `not a name of a segment: ${kernel}`);
  if (plan === undefined) return;
  const written = new Set(statements.flatMap(usesOf).flatMap((use) => (use.access === 'write' ? [use.name] : [])));
  for (const name of plan.replicated) rule(written.has(name), where, `replicated ${name} is not written here`);
  rule(adds(plan.stages), where, `stages do not add up to ${statements.length} statements`);
  const isStage = (index: number): boolean => Number.isInteger(index) && index >= 0 && index < plan.stages.length;
  for (const { from, to, distance } of plan.handOffs) {
    rule(isStage(from) && isStage(to), where, `hand-off from stage ${from} to ${to} of ${plan.stages.length}`);
    rule(Number.isSafeInteger(distance) && distance >= 0, where, `hand-off over ${distance} iterations`);
  }
}

/** Types of the scope; the innermost statement that does not fit is named. */
function verifyTypes(region: Region, env: Types, where: Where): Types {
  let types = env;
  region.statements.forEach((statement, index) => {
    const here = at(where, index);
    try {
      if (statement.kind === 'loop') {
        const inner = verifyTypes(statement.body, loopScope(statement, types), here);
        if (statement.until !== undefined) {
          const until = inner.get(statement.until)!;
          rule(until.dtype === 'i32', here, `until ${statement.until} is ${formatTensor(until)}, not i32`);
        }
      }
      types = inferRegion({ statements: [statement], segments: [] }, types);
    } catch (error) {
      if (!(error instanceof TypeMismatch)) throw error;
      throw new VerifyError(here, messageOf(error));
    }
  });
  return types;
}
