/**
 * The rewrite: the calls of a run become one call of a kernel whose body is one loop.
 *
 *   layer(w.0, x.0, x.1); layer(w.1, x.1, x.2); layer(w.2, x.2, x.3)
 *     -->
 *   decoder([w.0, w.1, w.2], x.0, x.3)     // stacked, carried, final
 */
import { argumentKey } from '../../ir/outline.js';
import type { Access, Argument, Binding, Call, Kernel, Loop, Name, Param, Segment } from '../../ir/program.js';
import { stackTensor } from '../../ir/tensor.js';
import { assert, defined } from '../../util/assert.js';
import { namesOf } from '../value-uses.js';
import type { Role } from './bindings.js';
import type { Run } from './find-runs.js';
import type { Iterations } from './iterations.js';

/** The looped kernel under this name, and its call. `until` is the value of iteration 0 whose test ends the loop. */
export function loopRun(
  context: Iterations,
  run: Run,
  name: Name,
  until?: Name,
): { readonly kernel: Kernel; readonly call: Call } {
  const { program } = context;
  const first = run.iterations[0]!;
  const columns = new Map(first.args.map((argument, at) => [argumentKey(argument), at]));
  const columnOf = (argument: Argument): number => defined(columns.get(argumentKey(argument)), 'column of an argument');
  const leaves = (value: Name): boolean => run.roles[columnOf({ kind: 'value', value })]!.kind !== 'local';
  const members = program.calls.slice(first.first, first.end);
  const { kernel: body, args } = context.grouper.group(members, name, leaves);

  const inside = new Map(body.params.map((param, at) => [columnOf(args[at]!), param]));
  const outer = new OuterScope(run);
  const bindings = body.params.flatMap((param, at): Binding[] => {
    const column = columnOf(args[at]!);
    const binding = outer.bind(run.roles[column]!, column, param, (from) => inside.get(from)!);
    return binding === undefined ? [] : [binding];
  });

  const test = until === undefined ? undefined : inside.get(columns.get(until) ?? -1)?.name;
  const loop: Loop = {
    kind: 'loop',
    over: context.units.over,
    trip: run.iterations.length,
    ...(test === undefined ? {} : { until: test }),
    bindings,
    body: body.body,
  };
  const segments = [loopSegment(name, members)];
  const kernel: Kernel = { name, params: outer.params, body: { statements: [loop], segments } };
  return { kernel, call: { kernel: name, args: outer.args, origin: {} } };
}

/**
 * Where an iteration is one call, the segments of the loop body are those of the kernel called; its name stands outside.
 * Where it is several, they are the segments of the body, and the looped kernel's own name stands outside. (unroll
 * reads this.)
 */
function loopSegment(name: Name, members: readonly Call[]): Segment {
  return { kernel: members.length === 1 ? members[0]!.kernel : name, statements: 1 };
}

/** Parameters and arguments of the looped kernel, in the order in which the bindings use them. */
class OuterScope {
  readonly params: Param[] = [];
  readonly args: Argument[] = [];

  constructor(private readonly run: Run) {}

  /** The binding of one parameter of the body; undefined for what a carried one brings with it. */
  bind(role: Role, column: number, param: Param, paramOf: (column: number) => Param): Binding | undefined {
    const { name, tensor, access } = param;
    const arg = (iteration: number, of: number): Argument => this.run.iterations.at(iteration)!.args[of]!;
    switch (role.kind) {
      case 'invariant':
        assert(access !== 'write', `${name} is written in every iteration`);
        this.add(name, tensor, access, arg(0, column));
        return { kind: 'invariant', name, access, outer: name };
      case 'stacked': {
        const values = this.run.iterations.flatMap(({ args }) => namesOf(args[column]!));
        this.add(name, stackTensor(tensor, values.length), access, { kind: 'stack', values });
        return { kind: 'stacked', name, access, outer: name };
      }
      case 'carried': {
        const next = paramOf(role.from).name;
        this.add(name, tensor, 'read', arg(0, column));
        const written = this.run.roles[role.from]!;
        if (written.kind !== 'next' || !written.final) return { kind: 'carried', name, next, outer: name };
        this.add(next, tensor, 'write', arg(-1, role.from));
        return { kind: 'carried', name, next, outer: name, final: next };
      }
      case 'next':
      case 'local':
        return undefined;
      default:
        return role satisfies never;
    }
  }

  private add(name: Name, tensor: Param['tensor'], access: Access, argument: Argument): void {
    this.params.push({ name, tensor, access });
    this.args.push(argument);
  }
}
