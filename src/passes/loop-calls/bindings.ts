/**
 * Legality of a loop: what every parameter of the repeating group is over all iterations. Exactly one must hold:
 *
 *   w.0  w.1  w.2        stacked: distinct values, used for nothing else in the run
 *   rope rope rope       invariant: the same value each time
 *   x.0  x.1  x.2        carried: what the iteration before wrote through one and the same parameter
 *   h.0  h.1  h.2        (written) local to an iteration, carried to the next, or stacked where all are read outside
 *
 * Anything else is refused with a reason. The last iteration given is the one at fault: runs grow one by one.
 */
import { argumentKey } from '../../ir/outline.js';
import type { Argument, Name, Param } from '../../ir/program.js';
import { assert } from '../../util/assert.js';
import type { RefusalReason } from '../pass.js';
import { namesOf } from '../value-uses.js';
import type { Iteration, Iterations } from './iterations.js';

export type Role =
  | { readonly kind: 'invariant' }
  | { readonly kind: 'stacked' }
  /** Read; what parameter `from` of the iteration before wrote. */
  | { readonly kind: 'carried'; readonly from: number }
  /** Written; read by the next iteration, and outside where `final` after the last one. */
  | { readonly kind: 'next'; readonly final: boolean }
  /** Written and read within an iteration only. */
  | { readonly kind: 'local' };

export interface Violation {
  readonly reason: RefusalReason;
  readonly param: Name;
  readonly detail: string;
}

/** A role per parameter of the group, or why there is none. */
export type BindResult =
  | { readonly kind: 'bound'; readonly roles: readonly Role[] }
  | { readonly kind: 'refused'; readonly violation: Violation };

/** @param run at least two iterations of equal kernels, one after the other */
export function bindRun(context: Iterations, run: readonly Iteration[]): BindResult {
  assert(run.length >= 2, 'a run of fewer than two iterations');
  const checker = new RunChecker(context, run);
  try {
    return { kind: 'bound', roles: checker.roles() };
  } catch (error) {
    if (error instanceof Refused) return { kind: 'refused', violation: error.violation };
    throw error;
  }
}

/** Leaves the check at the first violation; never leaves this file. */
class Refused extends Error {
  constructor(readonly violation: Violation) {
    super(violation.detail);
  }
}

interface Writer {
  readonly param: number;
  readonly iteration: number;
}

class RunChecker {
  private readonly params: readonly Param[];
  private readonly writers = new Map<Name, Writer>();

  constructor(
    private readonly context: Iterations,
    private readonly run: readonly Iteration[],
  ) {
    this.params = run[0]!.kernel.params;
    run.forEach(({ args }, iteration) => {
      this.params.forEach((param, at) => {
        if (param.access !== 'write') return;
        for (const name of namesOf(args[at]!)) this.writers.set(name, { param: at, iteration });
      });
    });
  }

  roles(): Role[] {
    const reads = this.params.map(({ access }, at) => (access === 'write' ? undefined : this.readRole(at)));
    const roles = reads.map((role, at) => role ?? this.writeRole(at, reads));
    this.checkAliases(roles);
    return roles;
  }

  private column(at: number): Argument[] {
    return this.run.map(({ args }) => args[at]!);
  }

  private refuse(reason: RefusalReason, at: number, detail: string): never {
    throw new Refused({ reason, param: this.params[at]!.name, detail });
  }

  private label(iteration: number): string {
    return this.context.label(this.run[iteration]!.first);
  }

  private readRole(at: number): Role {
    const column = this.column(at);
    const { name, access } = this.params[at]!;
    const distinct = new Set(column.map(argumentKey)).size;
    if (distinct === 1) return { kind: 'invariant' };
    const writers = column.map((argument) => namesOf(argument).map((value) => this.writers.get(value)));
    if (writers.flat().some((writer) => writer !== undefined)) return this.carriedRole(at, writers);
    if (distinct === column.length && column.every(({ kind }) => kind === 'value')) return this.stackedRole(at);
    const last = namesOf(column.at(-1)!).join(', ');
    if (distinct === column.length) {
      this.refuse('mixed-binding', at, `${name} is another stack of values in every iteration`);
    }
    const what = access === 'read' ? 'reads' : 'updates';
    this.refuse(
      'aliases',
      at,
      `${this.label(column.length - 1)} ${what} ${last} as ${name}; over the run it is neither one value nor distinct ones`,
    );
  }

  /** A stack lies in one place, so that its values must be of one kind; inputs lie where the host puts each. */
  private stackedRole(at: number): Role {
    const kinds = new Set(
      this.column(at).flatMap((value) => namesOf(value).map((name) => this.context.originOf(name))),
    );
    if (kinds.size === 1 && !kinds.has('input')) return { kind: 'stacked' };
    const what = [...kinds].join(' and ');
    this.refuse('mixed-binding', at, `${this.params[at]!.name} is another value each time, of kind ${what}`);
  }

  /** `writers[i]` are who wrote the values of iteration i, undefined for what was there before the run. */
  private carriedRole(at: number, writers: readonly (readonly (Writer | undefined)[])[]): Role {
    const { name, access } = this.params[at]!;
    const from = writers[1]!.find((writer) => writer !== undefined)?.param;
    if (from === undefined) {
      const iteration = writers.findIndex((found) => found.some((writer) => writer !== undefined));
      this.refuseMixed(at, iteration, from);
    }
    writers.forEach((found, iteration) => {
      const [writer] = found;
      const single = found.length === 1 && this.column(at)[iteration]!.kind === 'value';
      if (iteration === 0 && found.every((value) => value === undefined) && single) return;
      if (single && writer?.iteration === iteration - 1) {
        if (writer.param === from) return;
        const [before, now] = [this.params[from]!.name, this.params[writer.param]!.name];
        const detail = `${name} is ${before} of the iteration before, but in ${this.label(iteration)} it is ${now}`;
        this.refuse('carried-through-different-parameters', at, detail);
      }
      this.refuseMixed(at, iteration, from);
    });
    assert(access === 'read', `${name} is carried and changed in place`);
    return { kind: 'carried', from };
  }

  /** The value may go on through another parameter than before: then that is what to say. */
  private refuseMixed(at: number, iteration: number, from: number | undefined): never {
    const { name } = this.params[at]!;
    const here = this.label(iteration);
    if (from !== undefined && iteration >= 1) {
      const expected = argumentKey(this.run[iteration - 1]!.args[from]!);
      const other = this.run[iteration]!.args.findIndex((argument) => argumentKey(argument) === expected);
      if (other >= 0) {
        const detail = `${expected} goes on to ${here} as ${this.params[other]!.name}, and not as ${name} like before`;
        this.refuse('carried-through-different-parameters', at, detail);
      }
    }
    const value = argumentKey(this.run[iteration]!.args[at]!);
    this.refuse('mixed-binding', at, `${name} of ${here} is ${value}, which is not what the iteration before hands on`);
  }

  private writeRole(at: number, reads: readonly (Role | undefined)[]): Role {
    const column = this.column(at);
    const carried = reads.some((role) => role?.kind === 'carried' && role.from === at);
    const outside = column.map((argument, iteration) => this.readerOutside(argument, iteration, carried));
    const last = column.length - 1;
    if (carried) {
      outside.slice(0, last).forEach((reader, iteration) => {
        if (reader !== undefined) this.refuseReader(at, iteration, reader);
      });
      return { kind: 'next', final: outside[last] !== undefined };
    }
    const odd = outside.findIndex((reader) => (reader === undefined) !== (outside[0] === undefined));
    if (odd >= 0) this.refuseReader(at, outside[0] === undefined ? odd : 0, outside[0] ?? outside[odd]!);
    const stacks = column.some(({ kind }) => kind === 'stack');
    if (stacks) this.refuse('mixed-binding', at, `${this.params[at]!.name} is another stack in every iteration`);
    return { kind: outside[0] === undefined ? 'local' : 'stacked' };
  }

  private refuseReader(at: number, iteration: number, reader: string): never {
    const value = argumentKey(this.run[iteration]!.args[at]!);
    const detail = `${value}, written in ${this.label(iteration)}, is also read by ${reader}`;
    this.refuse('read-outside-the-run', at, detail);
  }

  /** Who reads what an iteration wrote, beside itself and, where carried, the next one. */
  private readerOutside(argument: Argument, iteration: number, carried: boolean): string | undefined {
    const { first } = this.run[iteration]!;
    const { end } = this.run[carried ? Math.min(iteration + 1, this.run.length - 1) : iteration]!;
    for (const name of namesOf(argument)) {
      if (this.context.uses.isReadByHost(name)) return 'the host';
      const call = this.context.uses.callsOf(name).find((index) => index < first || index >= end);
      if (call === undefined) continue;
      const { kernel } = this.context.program.calls[call]!;
      return this.context.units.unitOf(call) === undefined ? kernel : `${kernel} of ${this.context.label(call)}`;
    }
    return undefined;
  }

  /** A value stands in one column, unless it is carried from one to the other or only ever read, the same in all. */
  private checkAliases(roles: readonly Role[]): void {
    const places = new Map<Name, number>();
    this.run.forEach(({ args }, iteration) => {
      args.forEach((argument, at) => {
        for (const name of namesOf(argument)) {
          const stack = roles[at]!.kind === 'stacked' ? this.context.stackOf(name) : undefined;
          if (stack !== undefined && stack[iteration] !== name) {
            this.refuse('aliases', at, `${name} stands in another stack at another place`);
          }
          const other = places.get(name) ?? at;
          places.set(name, other);
          if (other === at || this.mayShare(roles, at, other) || this.mayShare(roles, other, at)) continue;
          const [here, there] = [this.params[at]!.name, this.params[other]!.name];
          this.refuse('aliases', at, `${name} is used as ${here} and as ${there} within the run`);
        }
      });
    });
  }

  private mayShare(roles: readonly Role[], at: number, other: number): boolean {
    const [role, second] = [roles[at]!, roles[other]!];
    if (role.kind === 'carried') return role.from === other;
    const read = this.params[at]!.access === 'read' && this.params[other]!.access === 'read';
    return role.kind === 'invariant' && second.kind === 'invariant' && read;
  }
}
