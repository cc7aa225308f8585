/**
 * Taking a region apart into calls, the opposite of CallGrouper: each part of its statements becomes a kernel, and names
 * that only one part uses stay local to it. What the other names stand for is up to the caller.
 */
import { outline } from '../ir/outline.js';
import type {
  Argument,
  Call,
  Kernel,
  Name,
  Program,
  Region,
  Segment,
  Statement,
  Tensor,
  Value,
} from '../ir/program.js';
import { usesOf } from '../ir/visit.js';
import { defined } from '../util/assert.js';
import { FreshNames } from './fresh-names.js';
import { kernelKey } from './kernel-form.js';

export interface Part {
  readonly kernel: Name;
  readonly statements: readonly Statement[];
  readonly segments: readonly Segment[];
}

/** One part for each segment of the region. */
export function partsOf(region: Region): Part[] {
  let position = 0;
  return region.segments.map((segment) => {
    const statements = region.statements.slice(position, position + segment.statements);
    position += segment.statements;
    return { kernel: segment.kernel, statements, segments: [segment] };
  });
}

/** What a name of the region stands for; undefined for a local of the region. */
export type Resolve = (name: Name) => Argument | undefined;

/** Collects the kernels and temporaries of calls that were taken apart. */
export class CallSplitter {
  /** By what they do; the program may have several that do the same. */
  private readonly known: Map<string, Kernel>;
  private readonly kernels: Kernel[];
  private readonly kernelNames: FreshNames;
  private readonly valueNames: Set<Name>;
  private readonly added: Value[] = [];

  constructor(private readonly program: Program) {
    this.known = new Map(program.kernels.map((kernel) => [kernelKey(kernel), kernel]));
    this.kernels = [...program.kernels];
    this.kernelNames = new FreshNames(program.kernels.map(({ name }) => name));
    this.valueNames = new Set(program.values.map(({ name }) => name));
  }

  /** A new temporary called `base` with this suffix, or nearly so. */
  temporary(base: Name, suffix: string, tensor: Tensor): Argument {
    let name = `${base}${suffix}`;
    for (let index = 2; this.valueNames.has(name); index++) name = `${base}_${index}${suffix}`;
    this.valueNames.add(name);
    this.added.push({ name, tensor, origin: { kind: 'temporary' } });
    return { kind: 'value', value: name };
  }

  /**
   * A call for each part, in order.
   * @param types of all names of the region
   * @param suffix of the temporaries made for locals that cross parts
   */
  split(parts: readonly Part[], types: ReadonlyMap<Name, Tensor>, resolve: Resolve, suffix: string): Call[] {
    const crossing = this.crossingLocals(parts, types, resolve, suffix);
    const argumentOf = (name: Name): Argument | undefined => resolve(name) ?? crossing.get(name);
    return parts.map(({ kernel: name, statements, segments }) => {
      const outside = (symbol: string) =>
        argumentOf(symbol) === undefined ? undefined : { tensor: defined(types.get(symbol), symbol) };
      const { kernel, symbols } = outline(name, statements, segments, (symbol) => symbol, outside);
      const args = symbols.map((symbol) => defined(argumentOf(symbol), symbol));
      return { kernel: this.share(kernel), args, origin: {} };
    });
  }

  /** The program with these calls, and what they need. */
  finish(calls: readonly Call[]): Program {
    return {
      ...this.program,
      calls,
      kernels: this.kernels,
      values: [...this.program.values, ...this.added],
    };
  }

  private crossingLocals(
    parts: readonly Part[],
    types: ReadonlyMap<Name, Tensor>,
    resolve: Resolve,
    suffix: string,
  ): Map<Name, Argument> {
    const firstPart = new Map<Name, Part>();
    const crossing = new Map<Name, Argument>();
    for (const part of parts) {
      for (const { name } of part.statements.flatMap(usesOf)) {
        const first = firstPart.get(name) ?? part;
        firstPart.set(name, first);
        if (first === part || crossing.has(name) || resolve(name) !== undefined) continue;
        crossing.set(name, this.temporary(name, suffix, defined(types.get(name), name)));
      }
    }
    return crossing;
  }

  private share(kernel: Kernel): Name {
    const key = kernelKey(kernel);
    const known = this.known.get(key);
    if (known !== undefined) return known.name;
    const added = { ...kernel, name: this.kernelNames.fresh(kernel.name) };
    this.known.set(key, added);
    this.kernels.push(added);
    return added.name;
  }
}
