/**
 * The weights of a sharded program. A weight that all operators read in one way (whole, or in one kind of shard) keeps its
 * name; where ways differ (a tied embedding: whole for the lookup, divided for the LM head), every further way is a
 * separate value of the same checkpoint tensor.
 */
import { baseName } from '../ir/outline.js';
import type { Name, Program, Shard, Value } from '../ir/program.js';
import { assert, defined } from '../util/assert.js';
import { FreshNames } from './fresh-names.js';

/** How one operator reads a weight; no shard means whole. */
export interface WeightUse {
  readonly weight: Name;
  readonly shard?: Shard;
}

export class ShardedWeights {
  /** All checkpoint values of the sharded program. */
  readonly values: readonly Value[];
  private readonly names = new Map<string, Name>();

  constructor(program: Program, uses: readonly WeightUse[]) {
    const sources = new Map(program.values.map((value) => [value.name, value]));
    const fresh = new FreshNames(sources.keys());
    const whole = new Set(uses.flatMap(({ weight, shard }) => (shard === undefined ? [weight] : [])));
    const taken = new Set<Name>();
    const values: Value[] = [];
    for (const use of uses) {
      if (this.names.has(keyOf(use))) continue;
      const { weight, shard } = use;
      const own = !taken.has(weight) && (shard === undefined || !whole.has(weight));
      const name = own ? weight : nameOfShard(weight, fresh);
      taken.add(weight);
      this.names.set(keyOf(use), name);
      values.push({ ...shardValue(defined(sources.get(weight), weight), shard), name });
    }
    this.values = values;
  }

  /** Name of the value that this use reads. */
  nameOf(use: WeightUse): Name {
    return defined(this.names.get(keyOf(use)), `a use of ${use.weight}`);
  }
}

function keyOf({ weight, shard }: WeightUse): string {
  return shard === undefined ? weight : `${weight} ${shard.axis} ${shard.parts} ${shard.replicas}`;
}

/** `embedding_shard` of `embedding`, `w_q_shard.3` of `w_q.3`. */
function nameOfShard(weight: Name, names: FreshNames): Name {
  const base = baseName(weight);
  return names.fresh(`${base}_shard${weight.slice(base.length)}`);
}

function shardValue(value: Value, shard: Shard | undefined): Value {
  const { tensor, origin } = value;
  if (shard === undefined) return value;
  assert(origin.kind === 'checkpoint', `${value.name} is no tensor of the checkpoint`);
  const shape = tensor.shape.map((size, axis) => (axis === shard.axis ? (size as number) / shard.parts : size));
  return { ...value, tensor: { ...tensor, shape }, origin: { ...origin, shard } };
}
