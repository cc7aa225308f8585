/**
 * Making a kernel of a run of statements: what is used outside becomes a parameter, the rest stays local. Parameters stand
 * in the order of first use and are named after what they hold, so equal bodies give equal kernels whatever layer they are
 * from. The model builder, fuseLayers and loopCalls all make their kernels here.
 */
import { assert } from '../util/assert.js';
import type {
  Access,
  Argument,
  Call,
  Kernel,
  Name,
  Param,
  Program,
  Segment,
  Statement,
  Tensor,
  Value,
} from './program.js';
import { stackTensor } from './tensor.js';
import { renameStatement, usesOf } from './visit.js';

/** `w_q` of `w_q.3`, `tokens` of `tokens.t1`. */
export function baseName(name: Name): Name {
  const dot = name.indexOf('.');
  return dot < 0 ? name : name.slice(0, dot);
}

/** A name that is not taken yet: `base`, else `base_out` for what is written, else `base_2`, `base_3`, ... */
function freshName(base: Name, access: Access | 'local', taken: ReadonlySet<Name>): Name {
  if (!taken.has(base)) return base;
  if (access === 'write' && !taken.has(`${base}_out`)) return `${base}_out`;
  let index = 2;
  while (taken.has(`${base}_${index}`)) index++;
  return `${base}_${index}`;
}

export interface Outlined {
  readonly kernel: Kernel;
  /** What each parameter stands for, in order. */
  readonly symbols: readonly string[];
}

/** What a symbol of the statements means outside: undefined for what stays inside. */
export interface Outside {
  readonly tensor: Tensor;
}

/**
 * @param statements their names are symbols: any strings
 * @param baseOf the name that a symbol should have inside, before it is made unique
 * @param outside the type of a symbol that becomes a parameter, undefined for one that stays local
 */
export function outline(
  name: Name,
  statements: readonly Statement[],
  segments: readonly Segment[],
  baseOf: (symbol: string) => Name,
  outside: (symbol: string) => Outside | undefined,
): Outlined {
  const accesses = strongestAccesses(statements);
  const inside = new Map<string, Name>();
  const taken = new Set<Name>();
  const params: Param[] = [];
  const symbols: string[] = [];
  for (const [symbol, access] of accesses) {
    const known = outside(symbol);
    const local = freshName(baseOf(symbol), known === undefined ? 'local' : access, taken);
    taken.add(local);
    inside.set(symbol, local);
    if (known === undefined) continue;
    params.push({ name: local, tensor: known.tensor, access });
    symbols.push(symbol);
  }
  const renamed = statements.map((statement) => renameStatement(statement, (symbol) => inside.get(symbol) ?? symbol));
  return { kernel: { name, params, body: { statements: renamed, segments } }, symbols };
}

/** Every symbol in the order of first use, with `write` over `update` over `read`. */
function strongestAccesses(statements: readonly Statement[]): Map<string, Access> {
  const rank = { read: 0, update: 1, write: 2 } as const;
  const accesses = new Map<string, Access>();
  for (const { name, access } of statements.flatMap(usesOf)) {
    const known = accesses.get(name);
    if (known === undefined || rank[access] > rank[known]) accesses.set(name, access);
  }
  return accesses;
}

/** A text that is equal for equal arguments and only for them. */
export function argumentKey(argument: Argument): string {
  return argument.kind === 'value' ? argument.value : `[${argument.values.join(',')}]`;
}

export interface CallGroup {
  readonly kernel: Kernel;
  readonly args: readonly Argument[];
}

/** Puts calls of a program together. */
export class CallGrouper {
  private readonly kernels: ReadonlyMap<Name, Kernel>;
  private readonly values: ReadonlyMap<Name, Value>;

  constructor(program: Program) {
    this.kernels = new Map(program.kernels.map((kernel) => [kernel.name, kernel]));
    this.values = new Map(program.values.map((value) => [value.name, value]));
  }

  /**
   * One kernel that does what these calls do in order. Temporaries for which `escapes` is false become locals.
   * Two groups have equal kernels exactly if they do the same up to their arguments.
   */
  group(calls: readonly Call[], name: Name, escapes: (value: Name) => boolean): CallGroup {
    const outer = new Map<string, Argument>();
    const statements: Statement[] = [];
    const segments: Segment[] = [];
    calls.forEach((call, index) => {
      const kernel = this.kernels.get(call.kernel);
      assert(kernel !== undefined, `call of unknown kernel ${call.kernel}`);
      const symbols = new Map<Name, string>();
      kernel.params.forEach((param, position) => {
        const argument = call.args[position];
        assert(argument !== undefined, `call of ${kernel.name} lacks argument ${param.name}`);
        const key = argumentKey(argument);
        symbols.set(param.name, key);
        outer.set(key, argument);
      });
      statements.push(
        ...kernel.body.statements.map((statement) =>
          renameStatement(statement, (inner) => symbols.get(inner) ?? `${inner}#${index}`),
        ),
      );
      segments.push(
        ...(calls.length === 1
          ? kernel.body.segments
          : [{ kernel: kernel.name, statements: kernel.body.statements.length }]),
      );
    });

    const outside = (symbol: string): Outside | undefined => {
      const argument = outer.get(symbol);
      if (argument === undefined) return undefined;
      if (argument.kind === 'stack') {
        const first = this.values.get(argument.values[0]!);
        assert(first !== undefined, `stack of unknown value ${argument.values[0]!}`);
        return { tensor: stackTensor(first.tensor, argument.values.length) };
      }
      const value = this.values.get(argument.value);
      assert(value !== undefined, `argument of unknown value ${argument.value}`);
      return value.origin.kind === 'temporary' && !escapes(value.name) ? undefined : { tensor: value.tensor };
    };
    const baseOf = (symbol: string): Name => {
      const argument = outer.get(symbol);
      if (argument === undefined) return symbol.slice(0, symbol.indexOf('#'));
      return baseName(argument.kind === 'value' ? argument.value : argument.values[0]!);
    };
    const { kernel, symbols } = outline(name, statements, segments, baseOf, outside);
    return { kernel, args: symbols.map((symbol) => outer.get(symbol)!) };
  }
}
