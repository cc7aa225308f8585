/** What an emitter of one operator needs to know about where it stands. */
import type { Dim, DType, Name, Tensor } from '../../../ir/program.js';
import type { Division } from '../../../passes/plan-stages.js';
import { concreteDim } from '../../../ir/tensor.js';
import { assert, defined } from '../../../util/assert.js';
import { checkedProduct } from '../../../util/checked.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import { inputForm, type InputForms } from './input-forms.js';
import type { KernelEmission } from './names.js';

type Emission = 'program' | 'scratch' | 'own' | 'headCounters' | 'expandedTile';

export interface Scope extends Pick<KernelEmission, Emission> {
  readonly types: ReadonlyMap<Name, Tensor>;
  /** C name of each IR name of this scope. */
  readonly names: ReadonlyMap<Name, string>;
  /** Key/value heads that a stage divided by heads, or by heads and context, shares out. */
  readonly kvHeads: number | undefined;
  /** Of the stage: where each worker has other forms of what matrices read, made with its first chunk. */
  readonly forms: InputForms;
}

/** One operator in its scope; everything returned is text for the C source, made of our own names and numbers. */
export class OperatorContext {
  constructor(
    private readonly scope: Scope,
    readonly division: Division,
    private readonly writer: CodeWriter,
  ) {}

  /** A statement, for the worker that holds chunk 0 where nobody divides it. */
  statement(text: string): void {
    this.writer.line(this.division === 'single' ? `if (me->chunk == 0) ${text}` : text);
  }

  name(name: Name): string {
    return defined(this.scope.names.get(name), `C name of ${name}`);
  }

  type(name: Name): Tensor {
    return defined(this.scope.types.get(name), `type of ${name}`);
  }

  /** The run-time count of the leading dimension. */
  rows(name: Name): string {
    return dimension(defined(this.type(name).shape[0], 'a leading dimension'));
  }

  /** Rows as a matrix of this format wants them: as they are, or in the form that the stage has made of them. */
  inputs(name: Name, format: DType): string {
    const form = inputForm(format);
    if (form === undefined) return this.name(name);
    const offset = defined(this.scope.forms[form].get(name), `${form} form of ${name}`);
    if (form === 'bf16') return `rounded_at(me, ${offset}, ${this.name(name)})`;
    return `quantized_at(me, ${offset}, ${this.rows(name)}, ${this.fixed(name, 1)})`;
  }

  /** A dimension that is fixed at compile time; negative axes count from the end. */
  fixed(name: Name, axis: number): number {
    const dim = this.type(name).shape.at(axis);
    assert(typeof dim === 'number', `dimension ${axis} of ${name} is not fixed`);
    return dim;
  }

  /** The chunk's units of `total`, of which every key/value head has an equal number. */
  units(total: number): string {
    if (this.division !== 'heads') return `(struct range){0, ${total}}`;
    const each = total / defined(this.scope.kvHeads, 'key/value heads');
    assert(Number.isInteger(each), `${total} units do not divide by the heads`);
    return each === 1 ? 'heads' : `(struct range){heads.begin * ${each}, heads.end * ${each}}`;
  }

  /** The chunk's key/value heads and blocks of the context. */
  attentionUnit(kvHeads: number): string {
    return this.division === 'context' ? 'unit' : `(struct attention_unit){${this.units(kvHeads)}, 0, 1}`;
  }

  /** The chunk's part of `width` features. */
  features(width: number): string {
    if (this.division !== 'features') return `(struct range){0, ${width}}`;
    return `features_of(tiles_of(me, ${width}), ${width})`;
  }

  /** The chunk's weight tiles of a matrix with `width` outputs. */
  tiles(width: number): string {
    if (this.division === 'features') return `tiles_of(me, ${width})`;
    assert(this.division === 'heads', 'a matrix is divided by features or by heads');
    return `head_tiles(heads, ${width / defined(this.scope.kvHeads, 'key/value heads')})`;
  }

  /** Offset of memory that every worker has for itself while the operator runs. */
  ownMemory(bytes: number): number {
    return this.scope.own.take(bytes);
  }

  /** Offset of memory for a product of sizes that all workers share while the operator runs. */
  sharedMemory(sizes: readonly number[]): number {
    const bytes = defined(checkedProduct(sizes), 'a size within 2^53 bytes');
    return this.scope.scratch.take(bytes);
  }

  /** The largest count of the leading dimension. */
  mostRows(name: Name): number {
    return concreteDim(defined(this.type(name).shape[0], 'a leading dimension'), this.scope.program.limits);
  }

  get expandedTile(): number {
    return this.scope.expandedTile;
  }

  get headCounters(): number {
    return this.scope.headCounters;
  }

  get context(): number {
    return this.scope.program.limits.context;
  }
}

export function dimension(dim: Dim): string {
  return typeof dim === 'number' ? String(dim) : dim;
}

/** A float constant that C reads back exactly. */
export function floatLiteral(value: number): string {
  assert(Number.isFinite(value), `${value} is no constant`);
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
}
