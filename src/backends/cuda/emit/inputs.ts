/**
 * What the matrices of a stage read: rows that others have made are brought near, once for all matrices that read them;
 * matrices in blocks want rows of int8.
 */
import { isQuantized } from '../../../ir/formats.js';
import type { Name, OperatorOf, Tensor } from '../../../ir/program.js';
import { isKind } from '../../../ir/visit.js';
import { defined } from '../../../util/assert.js';
import { bytesAtLimits, type Allocator } from '../../memory-map.js';
import { cName, countOf, dimension } from './names.js';
import type { StageScope } from './scope.js';

type Linear = OperatorOf<'linear'>;

export class Inputs {
  /** Inputs that are in place as soon as the threads of the block have waited for each other. */
  readonly ready = new Set<Name>();
  /** C++ names, by IR name: copies near by, and rows of int8. */
  private readonly near = new Map<Name, string>();
  private readonly int8 = new Map<Name, string>();
  /** Rows of int8 that are filled. */
  private readonly filled = new Set<Name>();

  /** Declares them. @param own room of the block, where shared memory is too small */
  constructor(
    private readonly at: StageScope,
    own: Allocator,
  ) {
    for (const operator of at.operators.filter((candidate) => isKind(candidate, 'linear'))) {
      if (this.isBlocks(operator)) this.declareInt8(operator.reads.x, own);
      else this.declareNear(operator.reads.x);
    }
  }

  private isBlocks({ reads }: Linear): boolean {
    return isQuantized(this.type(reads.weight).dtype);
  }

  private type(name: Name): Tensor {
    return defined(this.at.names.types.get(name), `type of ${name}`);
  }

  private declareNear(x: Name): void {
    const { names, emission, ownNames } = this.at;
    if (this.near.has(x) || ownNames.has(x)) return;
    const local = `near_${cName(x)}`;
    this.near.set(x, local);
    this.ready.add(x);
    const source = defined(names.c.get(x), `C++ name of ${x}`);
    emission.writer.line(`const float *${local} = near_rows(me, ${source}, ${countOf(this.type(x).shape)});`);
  }

  private declareInt8(x: Name, own: Allocator): void {
    const { emission, ownNames } = this.at;
    if (this.int8.has(x)) return;
    const local = `int8_${cName(x)}`;
    this.int8.set(x, local);
    // 32 numbers become 32 bytes and a scale.
    const offset = own.take((bytesAtLimits(this.type(x), emission.program) / 128) * 36);
    emission.writer.line(`const struct int8_rows ${local} = int8_room(me, ${this.shape(x)}, ${offset});`);
    if (ownNames.has(x)) return;
    emission.writer.line(this.fill(x, local));
    this.ready.add(x);
  }

  private fill(x: Name, local: string): string {
    this.filled.add(x);
    const source = defined(this.at.names.c.get(x), `C++ name of ${x}`);
    return `quantize_rows(me, ${local}, ${source}, ${this.shape(x)});`;
  }

  private shape(x: Name): string {
    const [rows, width] = this.type(x).shape;
    return `${dimension(defined(rows, 'rows'))}, ${dimension(defined(width, 'a width'))}`;
  }

  /** A statement that the first matrix in blocks needs in front, of what the stage itself has made. */
  lateRows(operator: Linear): string | undefined {
    const { x } = operator.reads;
    if (!this.isBlocks(operator) || this.filled.has(x)) return undefined;
    return this.fill(x, defined(this.int8.get(x), `rows of int8 of ${x}`));
  }

  /** C++ names of all that a matrix reads. */
  namesFor(operator: Linear): ReadonlyMap<Name, string> {
    const { x } = operator.reads;
    const local = (this.isBlocks(operator) ? this.int8 : this.near).get(x);
    return local === undefined ? this.at.names.c : new Map(this.at.names.c).set(x, local);
  }
}
