/** What the emitters of a stage, and of one operator of it, need to know about where they stand. */
import type { Dim, Name, Operator, OperatorOf, Region, Stage, Tensor } from '../../../ir/program.js';
import type { Division } from '../../../passes/plan-stages.js';
import { assert, defined } from '../../../util/assert.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import type { Allocator } from '../../memory-map.js';
import type { Layout } from '../target.js';
import type { KernelEmission } from './emission.js';
import { dimension, type Names } from './names.js';
import type { RingWriter } from './ring-writer.js';

/** What emitting a stage needs. */
export interface StageScope {
  readonly stage: Stage;
  readonly operators: readonly Operator[];
  readonly region: Region;
  readonly names: Names;
  readonly emission: KernelEmission;
  /** `decoder/layer`: for hand-offs. */
  readonly where: string;
  /** Names that only this stage uses, which a block may keep to itself. */
  readonly ownNames: ReadonlySet<Name>;
}

export interface Scope {
  readonly types: ReadonlyMap<Name, Tensor>;
  /** C++ name of each IR name of this scope. */
  readonly names: ReadonlyMap<Name, string>;
  /** The leading dimension of what is made for all, where blocks share many rows of it out: `made` in the source. */
  readonly madeRows: 'rows' | 'samples' | undefined;
  /** Key/value heads that a stage divided by heads shares out. */
  readonly kvHeads: number | undefined;
  /** Whether the heads of this stage are divided further, by spans of positions. */
  readonly hasSpans: boolean;
  readonly layout: Layout;
  readonly context: number;
  /** Rows that the program is compiled for. */
  readonly maxRows: number;
  readonly scratch: Allocator;
  /** Most blocks there can be. */
  readonly blocks: number;
  readonly ring: RingWriter;
  /** Hands off inside the stage; `what` is for the watchdog. */
  readonly handOff: (what: string) => void;
}

/** One operator in its scope; everything returned is text for the source, made of our own names and numbers. */
export class OperatorContext {
  constructor(
    readonly scope: Scope,
    readonly division: Division,
    /** The block's part of the features of this operator, where it is divided so. */
    private readonly tilesName: string | undefined,
    private readonly writer: CodeWriter,
  ) {}

  statement(text: string): void {
    this.writer.line(this.division === 'single' ? `if (me->block == 0) ${text}` : text);
  }

  /** A matrix, whose weights come through the ring. @param operands y, x and bias */
  linear({ reads, writes }: OperatorOf<'linear'>, operands: string): void {
    const format = this.type(reads.weight).dtype;
    const rows = defined(this.type(writes.y).shape[0], 'rows');
    const matrix = { format, rows, width: this.fixed(reads.weight, 1), units: this.tiles() };
    this.scope.ring.take(matrix, this.fixed(reads.weight, 0), operands, this.division === 'single');
  }

  /** A statement of all blocks, though one does the rest. */
  everywhere(text: string): void {
    this.writer.line(text);
  }

  name(name: Name): string {
    const text = defined(this.scope.names.get(name), `C++ name of ${name}`);
    const [leading, ...others] = this.type(name).shape;
    if (!this.isMade(leading)) return text;
    return `${text} + ${['(int64_t)made.begin', ...others].join(' * ')}`;
  }

  /** Whether this is a dimension of which the block has a part: operators that every block computes go row by row. */
  private isMade(dim: Dim | undefined): boolean {
    return this.division === 'replicated' && dim !== undefined && dim === this.scope.madeRows;
  }

  type(name: Name): Tensor {
    return defined(this.scope.types.get(name), `type of ${name}`);
  }

  /** The run-time count of the leading dimension. */
  rows(name: Name): string {
    const leading = defined(this.type(name).shape[0], 'a leading dimension');
    return this.isMade(leading) ? 'made.end - made.begin' : dimension(leading);
  }

  /** A dimension that is fixed at compile time; negative axes count from the end. */
  fixed(name: Name, axis: number): number {
    const dim = this.type(name).shape.at(axis);
    assert(typeof dim === 'number', `dimension ${axis} of ${name} is not fixed`);
    return dim;
  }

  /** Of `total` units, those of the key/value head of this item. */
  units(total: number): string {
    if (this.division !== 'heads') return `range{0, ${total}}`;
    const each = total / defined(this.scope.kvHeads, 'key/value heads');
    assert(Number.isInteger(each), `${total} units do not divide by the heads`);
    return each === 1 ? 'range{item.head, item.head + 1}' : `range{item.head * ${each}, (item.head + 1) * ${each}}`;
  }

  /** The block's part of `width` features. */
  features(width: number): string {
    if (this.division !== 'features') return `range{0, ${width}}`;
    return `features_of(${this.tiles()}, ${width})`;
  }

  /** The block's weight tiles. */
  tiles(): string {
    return defined(this.tilesName, 'tiles of an operator that is divided by features');
  }

  /** Memory that all blocks share. */
  scratch(bytes: number): string {
    return `scratch(me, ${this.scope.scratch.take(bytes)})`;
  }
}
