/**
 * shard: tensor parallelism over n sockets (Megatron-LM, arXiv 1909.08053). Projections into heads and gates are divided
 * by columns, projections back by rows; the sum over the sockets stands where the branch is added to the residual, so
 * that the number of calls stays. Key/value heads are duplicated where there are more sockets than heads.
 *
 *   o = linear(a, w_o[4096, 4096])            o_part = linear(a, w_o[4096, 512])
 *   --------------------------------   -->    ------------------------------------
 *   r = add(x, o)                             o = allReduce(o_part); r = add(x, o)
 */
import { baseName } from '../ir/outline.js';
import type { Name, Operator, Program, Shard, Tensor, Value } from '../ir/program.js';
import { isKind, usesOf } from '../ir/visit.js';
import { ProgramBuilder } from '../models/program-builder.js';
import { makeOperator } from '../ops/make.js';
import { assert, defined } from '../util/assert.js';
import { UsageError } from '../util/errors.js';
import type { Pass } from './pass.js';
import { inferSymbols, placeOperators, type PlacedCall } from './placed-operators.js';
import { findLayout, type ShardLayout } from './shard-layout.js';
import { ShardedWeights, type WeightUse } from './sharded-weights.js';

/**
 * A pass over programs of the `operator` schedule on one socket.
 * @throws UsageError for a number of sockets that is none, UnsupportedModelError where heads or features do not divide
 */
export function shard(sockets: number): Pass {
  if (!Number.isSafeInteger(sockets) || sockets < 1 || sockets > 4096) {
    throw new UsageError(`${sockets} sockets`, { hint: 'use a number from 1 to 4096' });
  }
  return (program) => {
    assert(program.sockets === 1, 'the program is sharded already');
    if (sockets === 1) return { program, report: { pass: 'shard', notes: [], refusals: [] } };
    const sharder = new Sharder(program, sockets);
    const sharded = sharder.run();
    return { program: sharded, report: { pass: 'shard', notes: sharder.notes(), refusals: [] } };
  };
}

type Linear = Operator & { readonly kind: 'linear' };

/** What becomes of a projection: `columns` give features of a part, `rows` give parts of a sum. */
type Division = { readonly kind: 'columns' | 'rows' | 'head'; readonly shard: Shard } | { readonly kind: 'whole' };

class Sharder {
  private readonly calls: readonly PlacedCall[];
  private readonly operators: readonly Operator[];
  private readonly types: ReadonlyMap<string, Tensor>;
  private readonly layout: ShardLayout;
  private readonly weights: ShardedWeights;
  private readonly read: ReadonlySet<string>;
  /** What becomes the logits of a sample, if need be capped. */
  private readonly heads: ReadonlySet<string>;
  /** Symbols whose parts are not summed up yet, with the symbol of the parts. */
  private readonly pending = new Map<string, string>();

  constructor(
    private readonly program: Program,
    private readonly sockets: number,
  ) {
    this.calls = placeOperators(program);
    this.operators = this.calls.flatMap((call) => call.operators);
    this.types = inferSymbols(program, this.calls);
    this.read = new Set(this.operators.flatMap(({ reads }) => Object.values<Name>(reads)));
    this.heads = headsOf(this.operators);
    this.layout = findLayout(program, this.operators, this.types, sockets);
    this.weights = new ShardedWeights(program, this.weightUses());
  }

  run(): Program {
    const calls = this.calls.map((call) => ({
      ...call,
      operators: call.operators.flatMap((operator) => [...this.sumsBefore(operator), ...this.rewrite(operator)]),
    }));
    const builder = new ProgramBuilder(this.program.name, this.program.limits);
    this.declare(builder);
    for (const { kernel, layer, operators } of calls) builder.call(kernel, layer, operators);
    const built = builder.finish(this.program.outputs, this.program.recurrence);
    const origins = new Map(this.weights.values.map(({ name, origin }) => [name, origin]));
    return {
      ...built,
      sockets: this.sockets,
      values: built.values.map((value): Value => ({ ...value, origin: origins.get(value.name) ?? value.origin })),
    };
  }

  notes(): string[] {
    const linears = this.operators.filter((operator) => isKind(operator, 'linear'));
    const kinds = linears.map((linear) => this.divisionOf(linear).kind);
    const count = (kind: Division['kind']): number => kinds.filter((other) => other === kind).length;
    const notes = [
      `${this.sockets} sockets: ${count('columns')} projections divided by columns, ` +
        `${count('rows')} by rows with an all-reduce each`,
    ];
    const cache = this.operators.find((operator) => isKind(operator, 'appendKv'));
    const kvParts = (cache && this.layout.partsOf(cache.updates.keys)) ?? this.sockets;
    if (kvParts < this.sockets)
      notes.push(`each of ${kvParts} key/value heads is held by ${this.sockets / kvParts} sockets`);
    const head = linears.find((linear) => this.heads.has(linear.writes.y));
    if (head !== undefined && this.divisionOf(head).kind === 'whole') {
      notes.push(`the LM head is whole on every socket: ${this.rowsOf(head)} tokens do not divide`);
    }
    return notes;
  }

  private divisionOf({ reads, writes }: Linear): Division {
    const parts = this.layout.partsOf(writes.y);
    if (parts !== undefined) return { kind: 'columns', shard: { axis: 0, parts, replicas: this.sockets / parts } };
    const even = { parts: this.sockets, replicas: 1 };
    if (this.layout.partsOf(reads.x) !== undefined) return { kind: 'rows', shard: { axis: 1, ...even } };
    const divides = this.rowsOf({ reads }) % this.sockets === 0;
    return divides && this.heads.has(writes.y) ? { kind: 'head', shard: { axis: 0, ...even } } : { kind: 'whole' };
  }

  private rowsOf({ reads }: Pick<Linear, 'reads'>): number {
    return defined(this.types.get(reads.weight), reads.weight).shape[0] as number;
  }

  private weightUses(): WeightUse[] {
    const checkpoint = new Set(
      this.program.values.filter(({ origin }) => origin.kind === 'checkpoint').map(({ name }) => name),
    );
    return this.operators.flatMap((operator) => {
      const division: Division = isKind(operator, 'linear') ? this.divisionOf(operator) : { kind: 'whole' };
      return Object.values<Name>(operator.reads)
        .filter((name) => checkpoint.has(name))
        .map((weight) => (division.kind === 'whole' ? { weight } : { weight, shard: division.shard }));
    });
  }

  /** Values that the new calls use, with their new types. */
  private declare(builder: ProgramBuilder): void {
    const used = new Set(this.operators.flatMap(usesOf).map(({ name }) => name));
    for (const { name, tensor, origin } of this.program.values) {
      if (origin.kind === 'input') builder.input(name, tensor);
      else if (origin.kind === 'constant' && used.has(name)) builder.constant(name, tensor, origin.data);
      else if (origin.kind === 'state' && used.has(name)) builder.state(name, this.localState(name, tensor));
    }
    for (const { name, tensor, origin } of this.weights.values) {
      assert(origin.kind === 'checkpoint', `${name} is a weight`);
      builder.weight(name, tensor, origin.tensor);
    }
  }

  private localState(name: Name, tensor: Tensor): Tensor {
    const parts = this.layout.partsOf(name);
    if (parts === undefined) return tensor;
    const [slots, kvHeads, ...rest] = tensor.shape; // (slots, kvHeads, context, headDim)
    return { ...tensor, shape: [slots!, (kvHeads as number) / parts, ...rest] };
  }

  /** All-reduces of what `operator` is the first to need whole. */
  private sumsBefore(operator: Operator): Operator[] {
    return usesOf(operator).flatMap(({ name }) => {
      const parts = this.pending.get(name);
      if (parts === undefined) return [];
      this.pending.delete(name);
      return [this.allReduce(parts, name)];
    });
  }

  private allReduce(x: string, y: string): Operator {
    return makeOperator('allReduce', { x }, { y }, {}, { sockets: this.sockets });
  }

  private rewrite(operator: Operator): Operator[] {
    if (isKind(operator, 'linear')) return this.rewriteLinear(operator);
    if (!isKind(operator, 'attention') || this.layout.partsOf(operator.writes.y) === undefined) return [operator];
    const { reads, writes, attributes } = operator;
    return [makeOperator('attention', reads, writes, {}, { ...attributes, heads: attributes.heads / this.sockets })];
  }

  private rewriteLinear(linear: Linear): Operator[] {
    const { reads, writes } = linear;
    const { y } = writes;
    const division = this.divisionOf(linear);
    if (division.kind === 'whole') return [linear];
    const { shard } = division;
    const weight = this.weights.nameOf({ weight: reads.weight, shard });
    const bias = reads.bias === undefined ? {} : { bias: this.weights.nameOf({ weight: reads.bias, shard }) };
    const local = (to: string): Operator => makeOperator('linear', { x: reads.x, weight, ...bias }, { y: to });
    switch (division.kind) {
      case 'columns':
        return [local(y)];
      case 'rows':
        if (!this.read.has(y)) return [local(partName(y)), this.allReduce(partName(y), y)];
        this.pending.set(y, partName(y));
        return [local(partName(y))];
      case 'head': {
        const gather = makeOperator('allGather', { x: partName(y) }, { y }, {}, { sockets: this.sockets });
        return [local(partName(y)), gather];
      }
      default:
        return division satisfies never;
    }
  }
}

function headsOf(operators: readonly Operator[]): ReadonlySet<string> {
  const heads = new Set<string>();
  for (const operator of operators.toReversed()) {
    if (isKind(operator, 'sample')) heads.add(operator.reads.logits);
    if (isKind(operator, 'softcap') && heads.has(operator.writes.y)) heads.add(operator.reads.x);
  }
  return heads;
}

/** `o_part.3` of `o.3`. */
function partName(symbol: string): string {
  const base = baseName(symbol);
  return `${base}_part${symbol.slice(base.length)}`;
}
