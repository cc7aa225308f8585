/** Removing what nobody mentions any more after calls were put together. */
import type { Name, Program } from '../ir/program.js';
import { namesOf } from './value-uses.js';

/** Without kernels that are never called, and without unused values except those the host supplies. */
export function dropUnused(program: Program): Program {
  const kernels = new Set(program.calls.map((call) => call.kernel));
  const used = new Set<Name>([
    ...program.calls.flatMap((call) => call.args.flatMap(namesOf)),
    ...program.outputs,
    ...program.recurrence.flatMap(({ output, input }) => [output, input]),
  ]);
  return {
    ...program,
    kernels: program.kernels.filter(({ name }) => kernels.has(name)),
    values: program.values.filter(({ name, origin }) => origin.kind === 'input' || used.has(name)),
  };
}
