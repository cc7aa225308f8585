/**
 * When are two kernels the same? A kernel is brought into one form: operands in the order of the operator's definition,
 * parameters `p0, p1, ...`, locals `v0, v1, ...` in the order of first use, no provenance and no plans. Two kernels do the
 * same up to their arguments exactly if their forms are equal; where they are not, `compareKernels` says what differs.
 */
import type { Binding, Kernel, Loop, Name, Operator, Region, Statement, Tensor } from '../ir/program.js';
import { formatTensor, sameTensor } from '../ir/tensor.js';
import { renameStatement, usesOf } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import type { RefusalReason } from './pass.js';

/** The kernel in its form; it keeps its own name. */
export function normalizeKernel(kernel: Kernel): Kernel {
  const params = kernel.params.map((param, index) => ({ ...param, name: `p${index}` }));
  const names = new Map(kernel.params.map((param, index) => [param.name, `p${index}`]));
  return { name: kernel.name, params, body: normalizeRegion(kernel.body, kernel.name, names) };
}

/** `names` has what the region sees from outside; its own names are added. */
function normalizeRegion(region: Region, segment: Name, names: Map<Name, Name>): Region {
  const ordered = region.statements.map(orderOperands);
  let locals = 0;
  for (const { name } of ordered.flatMap(usesOf)) if (!names.has(name)) names.set(name, `v${locals++}`);
  const statements = ordered
    .map((statement) => renameStatement(statement, (name) => names.get(name) ?? name))
    .map((statement) => (statement.kind === 'loop' ? normalizeLoop(statement) : statement));
  return { statements, segments: [{ kernel: segment, statements: statements.length }] };
}

function normalizeLoop(loop: Loop): Loop {
  const names = new Map<Name, Name>();
  for (const binding of loop.bindings) {
    names.set(binding.name, `p${names.size}`);
    if (binding.kind === 'carried') names.set(binding.next, `p${names.size}`);
  }
  const body = normalizeRegion(loop.body, loop.over, names);
  const inner = (name: Name): Name => names.get(name) ?? name;
  const bindings = loop.bindings.map((binding): Binding => {
    if (binding.kind !== 'carried') return { ...binding, name: inner(binding.name) };
    return { ...binding, name: inner(binding.name), next: inner(binding.next) };
  });
  const { over, trip, until } = loop;
  return { kind: 'loop', over, trip, ...(until === undefined ? {} : { until: inner(until) }), bindings, body };
}

/** The statement with its operand records in the order of the definition, so that first use does not depend on spelling. */
export function orderOperands(statement: Statement): Statement {
  if (statement.kind === 'loop') return statement;
  const { reads, optionalReads, updates, writes, attributes } = definitionOf(statement.kind);
  const pick = (record: object, keys: readonly string[]): object => {
    const source = record as Readonly<Record<string, unknown>>;
    return Object.fromEntries(keys.filter((key) => source[key] !== undefined).map((key) => [key, source[key]]));
  };
  // Same kind, same keys: only their order changes, which the type does not know.
  return {
    kind: statement.kind,
    reads: pick(statement.reads, [...reads, ...optionalReads]),
    updates: pick(statement.updates, updates),
    writes: pick(statement.writes, writes),
    attributes: pick(statement.attributes, Object.keys(attributes)),
  } as Operator;
}

/** A text that is equal for kernels that do the same up to their arguments, and only for them. */
export function kernelKey(kernel: Kernel): string {
  const { params, body } = normalizeKernel(kernel);
  return JSON.stringify([params, body.statements]);
}

export interface Difference {
  readonly reason: RefusalReason;
  readonly param?: Name;
  readonly detail: string;
}

/** What the kernels are called in the explanation: `layer 3`, `token 1`. */
export interface Labels {
  readonly here: string;
  readonly there: string;
}

/** The first thing in which `here` differs from `there`, or undefined where they do the same. */
export function compareKernels(here: Kernel, there: Kernel, labels: Labels): Difference | undefined {
  const [a, b] = [normalizeKernel(here), normalizeKernel(there)];
  return (
    compareDataflow(a.body, b.body, labels) ??
    compareParams(here, there, labels) ??
    compareAttributes(a.body, b.body, labels)
  );
}

function compareDataflow(here: Region, there: Region, labels: Labels): Difference | undefined {
  const differs = (detail: string): Difference => ({ reason: 'body-differs', detail });
  const length = Math.max(here.statements.length, there.statements.length);
  for (let index = 0; index < length; index++) {
    const [a, b] = [here.statements[index], there.statements[index]];
    if (a === undefined) return differs(`${labels.here} ends where ${labels.there} has ${b?.kind ?? 'nothing'}`);
    if (b === undefined) return differs(`${labels.here} goes on with ${a.kind} where ${labels.there} ends`);
    if (a.kind !== b.kind) return differs(`${labels.here} has ${a.kind} where ${labels.there} has ${b.kind}`);
    if (JSON.stringify(usesOf(a)) !== JSON.stringify(usesOf(b))) {
      return differs(`${a.kind} of ${labels.here} has other operands than in ${labels.there}`);
    }
    if (a.kind === 'loop' && b.kind === 'loop') {
      const inside = compareDataflow(a.body, b.body, labels);
      if (inside !== undefined) return inside;
    }
  }
  return undefined;
}

function compareParams(here: Kernel, there: Kernel, labels: Labels): Difference | undefined {
  for (const [index, { name, tensor, access }] of here.params.entries()) {
    const other = there.params[index];
    if (other === undefined || other.access !== access) {
      return { reason: 'body-differs', param: name, detail: `${labels.there} has no parameter like ${name}` };
    }
    if (sameTensor(tensor, other.tensor)) continue;
    const detail = `${name} is ${formatTensor(tensor)} in ${labels.here}, ${formatTensor(other.tensor)} in ${labels.there}`;
    return { reason: typeDifference(tensor, other.tensor), param: name, detail };
  }
  return undefined;
}

function typeDifference(a: Tensor, b: Tensor): RefusalReason {
  if (a.dtype !== b.dtype) return 'differs-in-dtype';
  return a.role === b.role ? 'differs-in-shape' : 'body-differs';
}

function compareAttributes(here: Region, there: Region, labels: Labels): Difference | undefined {
  for (const [index, a] of here.statements.entries()) {
    const b = there.statements[index];
    if (a.kind === 'loop' && b?.kind === 'loop') {
      const inside = compareLoops(a, b, labels);
      if (inside !== undefined) return inside;
      continue;
    }
    const [mine, others] = [attributesOf(a), b === undefined ? {} : attributesOf(b)];
    const name = Object.keys(mine).find((key) => mine[key] !== others[key]);
    if (name === undefined) continue;
    const detail = `${a.kind} has ${name} ${mine[name]} in ${labels.here}, ${others[name]} in ${labels.there}`;
    return { reason: 'attribute-differs', detail };
  }
  return undefined;
}

function compareLoops(a: Loop, b: Loop, labels: Labels): Difference | undefined {
  if (a.trip !== b.trip) {
    const detail = `the loop runs ${a.trip} times in ${labels.here}, ${b.trip} times in ${labels.there}`;
    return { reason: 'attribute-differs', detail };
  }
  if (JSON.stringify([a.over, a.until, a.bindings]) !== JSON.stringify([b.over, b.until, b.bindings])) {
    return { reason: 'body-differs', detail: `the loop of ${labels.here} has other bindings than in ${labels.there}` };
  }
  return compareAttributes(a.body, b.body, labels);
}

function attributesOf(statement: Statement): Readonly<Record<string, number | string>> {
  // Attributes of every operator are numbers and strings; the union of their records has no index.
  return statement.kind === 'loop' ? {} : statement.attributes;
}
