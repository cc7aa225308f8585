/**
 * A planned kernel, one call of it -> the order in which its stages want matrices, and where hand-offs must lie between the
 * stages: from the plan of each region and from the places that packWeights gave to the values of the call, no more.
 */
import { inferRegion, loopScope } from '../ir/infer.js';
import type { Argument, Call, Dim, Kernel, Loop, Name, Placement, Region, Tensor, Value } from '../ir/program.js';
import { isKind, loopsOf, statementsByStage } from '../ir/visit.js';
import { assert, defined } from '../util/assert.js';
import { iterationScope } from './pack-weights.js';
import { iterationsOf } from './ring-walk.js';

export interface WantedMatrix {
  readonly weight: Name;
  readonly tensor: Tensor;
  readonly placement: Placement;
  /** Rows of the result. */
  readonly rows: Dim;
  /** Index of its stage among all that are gone through. */
  readonly stage: number;
}

/** Stage `to` may begin when all workers have ended stage `from`; indices as above. */
export interface WantedHandOff {
  readonly from: number;
  readonly to: number;
}

export interface Wanted {
  readonly matrices: readonly WantedMatrix[];
  /** Stages without loops, as workers go through them. */
  readonly stages: readonly { readonly name: Name; readonly where: string }[];
  readonly handOffs: readonly WantedHandOff[];
}

/** The values of a program by name. */
export type Values = ReadonlyMap<Name, Value>;

/** @param repeating loops of which some iterations are enough */
export function wantedBy(call: Call, kernel: Kernel, values: Values, repeating: ReadonlySet<Name>): Wanted {
  const search = new Search(values, repeating);
  const args = new Map(kernel.params.map(({ name }, at) => [name, defined(call.args[at], `argument ${name}`)]));
  const types = new Map(kernel.params.map(({ name, tensor }) => [name, tensor]));
  search.region(kernel.body, { args, types, where: kernel.name });
  return search;
}

/** The loops, by what an iteration is, that have nothing of their own in any iteration: weights, caches. */
export function repeatingLoops(kernel: Kernel): Set<Name> {
  const loops = [...loopsOf(kernel.body)];
  const members = loops.filter(({ bindings }) => bindings.some(({ kind }) => kind === 'stacked'));
  return new Set(loops.map(({ over }) => over).filter((over) => !members.some((loop) => loop.over === over)));
}

interface Scope {
  /** What names stand for, where that is a value of the program or a stack of them. */
  readonly args: ReadonlyMap<Name, Argument>;
  readonly types: ReadonlyMap<Name, Tensor>;
  readonly where: string;
}

/** The first and the last that a stage with loops in it is made of. */
interface Span {
  readonly first: number;
  readonly last: number;
}

class Search implements Wanted {
  readonly matrices: WantedMatrix[] = [];
  readonly stages: { name: Name; where: string }[] = [];
  readonly handOffs: WantedHandOff[] = [];
  /** Types do not depend on the iteration. */
  private readonly types = new Map<Region, ReadonlyMap<Name, Tensor>>();

  constructor(
    private readonly values: Values,
    private readonly repeating: ReadonlySet<Name>,
  ) {}

  /** Returns what its stages are. */
  region(region: Region, scope: Scope): Span[] {
    const plan = defined(region.plan, 'a plan of the region');
    const types = this.types.get(region) ?? inferRegion(region, scope.types);
    this.types.set(region, types);
    const spans = statementsByStage(region, plan.stages).map((inside, index): Span => {
      const first = this.stages.length;
      const { name } = plan.stages[index]!;
      if (!inside.some(({ kind }) => kind === 'loop')) this.stages.push({ name, where: scope.where });
      for (const statement of inside) {
        if (statement.kind === 'loop') this.loop(statement, { ...scope, types });
        else if (isKind(statement, 'linear')) {
          const rows = defined(types.get(statement.writes.y)?.shape[0], 'rows');
          this.matrices.push({ ...this.weight(statement.reads.weight, scope), rows, stage: first });
        }
      }
      return { first, last: this.stages.length - 1 };
    });
    for (const { from, to, distance } of plan.handOffs) if (distance === 0) this.between(spans[from]!, spans[to]!);
    return spans;
  }

  private loop(loop: Loop, outer: Scope): void {
    const types = loopScope(loop, outer.types);
    const where = `${outer.where}/${loop.over}`;
    const { plan } = loop.body;
    const iterations = iterationsOf(loop.trip, this.repeating.has(loop.over)).map((iteration) =>
      this.region(loop.body, { args: iterationScope(loop, outer.args, iteration), types, where }),
    );
    for (const { from, to, distance } of defined(plan, 'a plan of the region').handOffs) {
      if (distance === 0) continue;
      iterations.forEach((spans, at) => {
        const later = iterations[at + distance];
        if (later !== undefined) this.between(spans[from]!, later[to]!);
      });
    }
  }

  private between(from: Span, to: Span): void {
    this.handOffs.push({ from: from.last, to: to.first });
  }

  private weight(name: Name, { args }: Scope): Pick<WantedMatrix, 'weight' | 'tensor' | 'placement'> {
    const argument = args.get(name);
    assert(argument?.kind === 'value', `${name} is one matrix`);
    const { tensor, origin } = defined(this.values.get(argument.value), argument.value);
    assert(origin.kind === 'checkpoint', `${argument.value} is a weight`);
    return {
      weight: argument.value,
      tensor,
      placement: defined(origin.placement, 'a placement; run packWeights first'),
    };
  }
}
