/**
 * The rules that every program keeps, before and after every pass: names and types fit, every value is written once and
 * before it is read, nothing that a call changes is seen by it under a second name. Kernel bodies are in verify-kernel.ts.
 */
import { checkedProduct } from '../util/checked.js';
import { blockOf } from './formats.js';
import type { Access, Argument, Call, Kernel, Name, Param, Program, Tensor, Value } from './program.js';
import { formatTensor, maxElements, sameTensor, stackTensor } from './tensor.js';
import { verifyKernel } from './verify-kernel.js';
import { rule } from './verify-error.js';

export { VerifyError } from './verify-error.js';

/** `w_q`, `w_q.3`, `tokens.t1`. */
const valueName = /^[a-z][a-z0-9_]*(\.t?[0-9]+)*$/;

/** @throws VerifyError on the first rule that does not hold. */
export function verify(program: Program): void {
  const { limits, sockets } = program;
  for (const [name, count] of Object.entries({ ...limits, sockets })) {
    rule(Number.isSafeInteger(count) && count > 0, {}, `${name} must be a positive integer, is ${String(count)}`);
  }
  unique('value', program.values);
  unique('kernel', program.kernels);
  for (const value of program.values) verifyValue(program, value);
  for (const kernel of program.kernels) verifyKernel(kernel);
  verifyCalls(program);
  verifyResults(program);
}

function unique(what: 'value' | 'kernel', items: readonly { readonly name: Name }[]): void {
  const seen = new Set<Name>();
  for (const { name } of items) {
    rule(!seen.has(name), { [what]: name }, 'the name is taken twice');
    seen.add(name);
  }
}

function verifyValue({ limits, sockets }: Program, { name, tensor, origin }: Value): void {
  const where = { value: name };
  rule(valueName.test(name), where, 'not a name of a value');
  const symbolic = tensor.shape.some((dim) => typeof dim !== 'number');
  const sizes = tensor.shape.map((dim) => (typeof dim === 'number' ? dim : limits[dim]));
  rule(
    sizes.every((size) => size > 0) && checkedProduct([...sizes, 4]) !== undefined,
    where,
    `impossible shape ${formatTensor(tensor)}`,
  );
  const block = blockOf(tensor.dtype).elements;
  rule((sizes.at(-1) ?? 1) % block === 0, where, `rows of ${formatTensor(tensor)} are not whole blocks of ${block}`);
  switch (origin.kind) {
    case 'input':
    case 'temporary':
      return;
    case 'state':
      rule(!symbolic && tensor.role === 'state', where, 'a state must have a fixed shape and the role of a state');
      return;
    case 'constant': {
      const count = symbolic ? undefined : maxElements(tensor, limits);
      rule(origin.data.length === count, where, `${origin.data.length} numbers for ${formatTensor(tensor)}`);
      rule(origin.data.every(Number.isFinite), where, 'a constant that is not finite');
      return;
    }
    case 'checkpoint': {
      const { rows, shard } = origin;
      rule(!symbolic && tensor.role === 'weight', where, 'a weight must have a fixed shape and the role of a weight');
      if (shard !== undefined) {
        rule(shard.parts * shard.replicas === sockets, where, `parts and replicas do not make ${sockets} sockets`);
        rule(shard.axis < tensor.shape.length, where, `no axis ${shard.axis} to divide`);
      }
      const parts = shard?.axis === 0 ? shard.parts : 1;
      rule(rows === undefined || rows.first >= 0, where, 'rows start before the tensor');
      rule(
        rows === undefined || rows.count === sizes[0]! * parts,
        where,
        `${rows?.count ?? 0} rows do not fit the shape`,
      );
      return;
    }
    default:
      return origin satisfies never;
  }
}

function verifyCalls(program: Program): void {
  const kernels = new Map(program.kernels.map((kernel) => [kernel.name, kernel]));
  const values = new Map(program.values.map((value) => [value.name, value]));
  const written = new Set<Name>();
  program.calls.forEach((call, index) => {
    const where = { call: index, kernel: call.kernel };
    const kernel = kernels.get(call.kernel);
    rule(kernel !== undefined, where, 'there is no such kernel');
    verifyArguments(call, kernel, values, where);
    const uses = kernel.params.flatMap((param, at) => valuesOf(call.args[at]!).map((name) => ({ name, param })));
    for (const { name, param } of uses)
      verifyUse(values.get(name)!, param.access, written, { ...where, param: param.name });
    for (const { name, param } of uses) if (param.access === 'write') written.add(name);
    verifyNoAlias(uses, where);
  });
}

/** Arity, existence and types. */
function verifyArguments(call: Call, kernel: Kernel, values: ReadonlyMap<Name, Value>, where: object): void {
  const [given, wanted] = [call.args.length, kernel.params.length];
  rule(given === wanted, where, `${given} arguments for ${wanted} parameters`);
  kernel.params.forEach((param, at) => {
    const argument = call.args[at]!;
    const here = { ...where, param: param.name };
    const tensors = valuesOf(argument).map((name) => {
      const value = values.get(name);
      rule(value !== undefined, here, `there is no value ${name}`);
      return value.tensor;
    });
    const [first] = tensors;
    rule(first !== undefined, here, 'an empty stack');
    rule(
      tensors.every((tensor) => sameTensor(tensor, first)),
      here,
      'a stack of values of different types',
    );
    const tensor = argument.kind === 'stack' ? stackTensor(first, tensors.length) : first;
    rule(sameTensor(tensor, param.tensor), here, `takes ${describe(param.tensor)}, is given ${describe(tensor)}`);
  });
}

function describe(tensor: Tensor): string {
  return `${tensor.role} ${formatTensor(tensor)}`;
}

function verifyUse({ name, origin }: Value, access: Access, written: ReadonlySet<Name>, where: object): void {
  if (origin.kind === 'state') rule(access !== 'write', where, `state ${name} may be updated, not written`);
  else if (origin.kind !== 'temporary') rule(access === 'read', where, `${origin.kind} value ${name} may only be read`);
  else if (access === 'read') rule(written.has(name), where, `${name} is read before it is written`);
  else {
    rule(access === 'write', where, `temporary ${name} may be written once, not updated`);
    rule(!written.has(name), where, `${name} is written a second time`);
  }
}

/** A value that the call changes stands under one parameter only, once. */
function verifyNoAlias(uses: readonly { readonly name: Name; readonly param: Param }[], where: object): void {
  const changed = new Set(uses.filter(({ param }) => param.access !== 'read').map(({ name }) => name));
  const seen = new Set<Name>();
  for (const { name, param } of uses) {
    const again = seen.has(name);
    rule(
      !again || !changed.has(name),
      { ...where, param: param.name },
      `${name} is changed, and stands in another place`,
    );
    seen.add(name);
  }
}

function valuesOf(argument: Argument): readonly Name[] {
  return argument.kind === 'value' ? [argument.value] : argument.values;
}

/** What the host reads, and what goes from one step to the next. */
function verifyResults(program: Program): void {
  const values = new Map(program.values.map((value) => [value.name, value]));
  const kernels = new Map(program.kernels.map((kernel) => [kernel.name, kernel]));
  const written = new Set(
    program.calls.flatMap(({ kernel, args }) =>
      args.filter((_, at) => kernels.get(kernel)!.params[at]!.access === 'write').flatMap(valuesOf),
    ),
  );
  for (const name of program.outputs) rule(written.has(name), { value: name }, 'an output that no call writes');
  rule(new Set(program.outputs).size === program.outputs.length, {}, 'an output is listed twice');
  const inputs = new Set<Name>();
  for (const { output, input } of program.recurrence) {
    const where = { value: output };
    const [from, to] = [values.get(output), values.get(input)];
    rule(from !== undefined && written.has(output), where, 'recurs, but no call writes it');
    rule(to?.origin.kind === 'input', where, `recurs as ${input}, which is not an input`);
    rule(!inputs.has(input), where, `recurs as ${input}, and is not the only one`);
    inputs.add(input);
    rule(fitsAsNext(from.tensor, to.tensor), where, `${describe(from.tensor)} recurs as ${describe(to.tensor)}`);
  }
}

/** Between steps every sample becomes a row. */
function fitsAsNext(output: Tensor, input: Tensor): boolean {
  const asRows = (tensor: Tensor): Tensor => ({
    ...tensor,
    shape: tensor.shape.map((dim) => (dim === 'samples' ? 'rows' : dim)),
  });
  return sameTensor(asRows(output), asRows(input));
}
