/** Who touches a value: the calls that name it in an argument, and the host after the last call. */
import type { Argument, Name, Program } from '../ir/program.js';

/** The values of an argument, one or a stack of them. */
export function namesOf(argument: Argument): readonly Name[] {
  return argument.kind === 'value' ? [argument.value] : argument.values;
}

export class ValueUses {
  private readonly calls = new Map<Name, number[]>();
  private readonly host: ReadonlySet<Name>;

  constructor(program: Program) {
    this.host = new Set([...program.outputs, ...program.recurrence.map(({ output }) => output)]);
    program.calls.forEach((call, index) => {
      for (const name of call.args.flatMap(namesOf)) {
        const known = this.calls.get(name);
        if (known === undefined) this.calls.set(name, [index]);
        else if (known.at(-1) !== index) known.push(index);
      }
    });
  }

  /** Indices of the calls that touch the value, ascending. */
  callsOf(value: Name): readonly number[] {
    return this.calls.get(value) ?? [];
  }

  /** The host reads it after the last call, or makes it an input of the next step. */
  isReadByHost(value: Name): boolean {
    return this.host.has(value);
  }

  /** Somebody other than calls `first .. end - 1` touches the value. */
  isUsedOutside(value: Name, first: number, end: number): boolean {
    return this.isReadByHost(value) || this.callsOf(value).some((call) => call < first || call >= end);
  }
}
