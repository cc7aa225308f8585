/** Removing what nobody mentions any more after calls were put together. */
import type { Name, Program } from '../ir/program.js';
import { defined } from '../util/assert.js';
import { namesOf } from './value-uses.js';

/** Without kernels that are never called, and without unused values except inputs. Kernels stand in the order of calls. */
export function dropUnused(program: Program): Program {
  const kernels = new Map(program.kernels.map((kernel) => [kernel.name, kernel]));
  const called = new Set(program.calls.map((call) => call.kernel));
  const used = new Set<Name>([
    ...program.calls.flatMap((call) => call.args.flatMap(namesOf)),
    ...program.outputs,
    ...program.recurrence.flatMap(({ output, input }) => [output, input]),
  ]);
  return {
    ...program,
    kernels: [...called].map((name) => defined(kernels.get(name), `kernel ${name}`)),
    values: program.values.filter(({ name, origin }) => origin.kind === 'input' || used.has(name)),
  };
}
