/**
 * The calls of a program as candidates for iterations: `period` calls from `start` on, put together as one kernel in which
 * every value that crosses a call is a parameter. Iterations can be looped only if these kernels are the same.
 */
import { CallGrouper, type CallGroup } from '../../ir/outline.js';
import type { Name, Program, ValueOrigin } from '../../ir/program.js';
import { defined } from '../../util/assert.js';
import { kernelKey } from '../kernel-form.js';
import { ValueUses } from '../value-uses.js';

/** What one iteration is to a person: the calls of one layer, or of one token. */
export interface Units {
  /** `layer` or `token`. */
  readonly over: Name;
  /** The layer or token that a call belongs to; undefined for a call that no loop is expected to take in. */
  readonly unitOf: (call: number) => number | undefined;
}

export interface Iteration extends CallGroup {
  readonly first: number;
  readonly end: number;
  readonly key: string;
}

export class Iterations {
  readonly uses: ValueUses;
  readonly grouper: CallGrouper;
  /** Equal for calls whose kernels do the same up to their arguments. */
  readonly classes: readonly number[];
  private readonly origins: ReadonlyMap<Name, ValueOrigin['kind']>;
  private readonly stacks = new Map<Name, readonly Name[]>();
  private readonly cache = new Map<string, Iteration>();

  constructor(
    readonly program: Program,
    readonly units: Units,
  ) {
    this.uses = new ValueUses(program);
    this.grouper = new CallGrouper(program);
    this.origins = new Map(program.values.map(({ name, origin }) => [name, origin.kind]));
    const known = new Map<string, number>();
    const classOf = new Map(
      program.kernels.map((kernel) => {
        const key = kernelKey(kernel);
        const index = known.get(key) ?? known.size;
        known.set(key, index);
        return [kernel.name, index];
      }),
    );
    for (const argument of program.calls.flatMap(({ args }) => args)) {
      if (argument.kind === 'stack') this.addStack(argument.values);
    }
    this.classes = program.calls.map((call) => defined(classOf.get(call.kernel), `kernel ${call.kernel}`));
  }

  /** Calls `first .. end - 1` as one. */
  at(first: number, end: number): Iteration {
    const place = `${first}:${end}`;
    const known = this.cache.get(place);
    if (known !== undefined) return known;
    const group = this.grouper.group(this.program.calls.slice(first, end), 'iteration', () => true);
    const iteration = { ...group, first, end, key: kernelKey(group.kernel) };
    this.cache.set(place, iteration);
    return iteration;
  }

  originOf(value: Name): ValueOrigin['kind'] {
    return defined(this.origins.get(value), `value ${value}`);
  }

  /** The stack that a value stands in already: it has one place in memory. */
  stackOf(value: Name): readonly Name[] | undefined {
    return this.stacks.get(value);
  }

  addStack(values: readonly Name[]): void {
    for (const value of values) this.stacks.set(value, values);
  }

  /** A call stands at the border of a layer or token, or belongs to none. */
  isBorder(call: number): boolean {
    const { unitOf } = this.units;
    return call === 0 || unitOf(call) === undefined || unitOf(call) !== unitOf(call - 1);
  }

  /** `layer 3`, `call 7`: what a refusal calls the place. */
  label(call: number): string {
    const unit = this.units.unitOf(call);
    return unit === undefined ? `call ${call}` : `${this.units.over} ${unit}`;
  }
}
