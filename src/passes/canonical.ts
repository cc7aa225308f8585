/**
 * canonicalize: one spelling for programs that make the same calls. Kernels get their one form (kernel-form.ts) for the
 * arguments they are called with, equal ones are one; temporaries are named in the order of the calls, all else by name.
 * Provenance (segments, layers, the schedule's name) and plans are left out: they say how a program came to be.
 */
import { CallGrouper } from '../ir/outline.js';
import type { Argument, Call, Kernel, Name, Program, Value } from '../ir/program.js';
import { kernelKey, normalizeKernel, orderOperands } from './kernel-form.js';
import { FreshNames } from './fresh-names.js';
import { dropUnused } from './unused.js';
import { namesOf, ValueUses } from './value-uses.js';

/** Two programs print alike after this exactly if they make the same calls up to names. */
export function canonicalize(program: Program): Program {
  const ordered = { ...program, kernels: program.kernels.map(orderKernel) };
  const { kernels, calls } = specialize(ordered);
  const used = dropUnused({ ...ordered, schedule: 'operator', kernels, calls });
  const temporary = new Set(used.values.filter(({ origin }) => origin.kind === 'temporary').map(({ name }) => name));
  const taken = new FreshNames(used.values.flatMap(({ name }) => (temporary.has(name) ? [] : [name])));
  const names = new Map<Name, Name>();
  for (const name of calls.flatMap(({ args }) => args.flatMap(namesOf))) {
    if (temporary.has(name) && !names.has(name)) names.set(name, taken.fresh('temporary'));
  }
  return renameValues(used, (name) => names.get(name) ?? name);
}

function orderKernel(kernel: Kernel): Kernel {
  return { ...kernel, body: { ...kernel.body, statements: kernel.body.statements.map(orderOperands) } };
}

/** Each call gets the kernel that fits its arguments exactly: none given twice, none that nobody else needs. */
function specialize(program: Program): { kernels: Kernel[]; calls: Call[] } {
  const uses = new ValueUses(program);
  const grouper = new CallGrouper(program);
  const kernels = new Map<string, Kernel>();
  const calls = program.calls.map((call, index): Call => {
    const escapes = (value: Name): boolean => uses.isUsedOutside(value, index, index + 1);
    const { kernel, args } = grouper.group([call], 'kernel', escapes);
    const key = kernelKey(kernel);
    const known = kernels.get(key) ?? normalizeKernel({ ...kernel, name: `k${kernels.size}` });
    kernels.set(key, known);
    return { kernel: known.name, args, origin: {} };
  });
  return { kernels: [...kernels.values()], calls };
}

function renameValues(program: Program, rename: (name: Name) => Name): Program {
  const renameArgument = (argument: Argument): Argument =>
    argument.kind === 'value'
      ? { kind: 'value', value: rename(argument.value) }
      : { kind: 'stack', values: argument.values.map(rename) };
  return {
    ...program,
    values: program.values.map((value): Value => ({ ...value, name: rename(value.name) })).sort(byName),
    calls: program.calls.map((call) => ({ ...call, args: call.args.map(renameArgument) })),
    outputs: program.outputs.map(rename),
    recurrence: program.recurrence.map(({ output, input }) => ({ output: rename(output), input })),
  };
}

function byName(a: Value, b: Value): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}
