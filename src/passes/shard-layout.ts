/**
 * What a tensor-parallel group divides (Megatron-LM, Shoeybi et al., arXiv 1909.08053), found from the dataflow alone. A
 * symbol can be divided by heads or features where all that write and read it can work on a part: from projections over
 * RoPE, attention or a gate to the projection back. The largest such set is what remains after taking out, again and
 * again, what stands beside something whole.
 */
import { blockOf } from '../ir/formats.js';
import type { Name, Operator, Program, Tensor } from '../ir/program.js';
import { usesOf } from '../ir/visit.js';
import { UnsupportedModelError } from '../util/errors.js';
import { defined } from '../util/assert.js';

export interface ShardLayout {
  /** In how many parts a divided symbol is; undefined for a whole one. */
  partsOf(symbol: string): number | undefined;
}

/** @throws UnsupportedModelError where heads or features do not divide */
export function findLayout(
  program: Program,
  operators: readonly Operator[],
  types: ReadonlyMap<string, Tensor>,
  sockets: number,
): ShardLayout {
  const divided = dividedSymbols(program, operators, types);
  const parts = new Map<string, number>();
  for (const symbol of divided) parts.set(symbol, sockets);
  const typeOf = (name: Name): Tensor => defined(types.get(name), name);
  for (const operator of operators.toReversed()) {
    if (operator.kind === 'appendKv' && divided.has(operator.updates.keys)) {
      const kvParts = partsOfKvHeads(typeOf(operator.updates.keys).shape[1] as number, sockets);
      const { k, v } = operator.reads;
      for (const symbol of [k, v, operator.updates.keys, operator.updates.values]) parts.set(symbol, kvParts);
    }
    if (operator.kind === 'rope' || operator.kind === 'rmsNorm' || operator.kind === 'softcap') {
      const count = parts.get(operator.writes.y);
      if (count !== undefined) parts.set(operator.reads.x, count);
    }
  }
  checkParts(operators, parts, typeOf, sockets);
  return { partsOf: (symbol) => parts.get(symbol) };
}

/** Every socket has some key/value heads of its own, or some sockets have the same one. */
function partsOfKvHeads(kvHeads: number, sockets: number): number {
  if (kvHeads % sockets === 0) return sockets;
  if (sockets % kvHeads === 0) return kvHeads;
  throw doesNotDivide(`${kvHeads} key/value heads`, sockets);
}

function doesNotDivide(what: string, sockets: number): UnsupportedModelError {
  return new UnsupportedModelError(`${what} cannot be divided among ${sockets} sockets`, {
    hint: 'use a number of sockets that divides the heads and the feed-forward width',
  });
}

function checkParts(
  operators: readonly Operator[],
  parts: ReadonlyMap<string, number>,
  typeOf: (name: Name) => Tensor,
  sockets: number,
): void {
  for (const operator of operators) {
    if (operator.kind === 'attention' && parts.has(operator.writes.y)) {
      const { heads } = operator.attributes;
      if (heads % sockets !== 0) throw doesNotDivide(`${heads} attention heads`, sockets);
    }
  }
  for (const operator of operators) {
    if (operator.kind !== 'linear') continue;
    const { x, weight, bias } = operator.reads;
    const { dtype, shape } = typeOf(weight);
    const [out, width] = shape as readonly [number, number];
    const count = parts.get(operator.writes.y);
    if (count !== undefined && out % count !== 0) throw doesNotDivide(`${out} features`, count);
    if (!parts.has(x)) continue;
    if (parts.get(x) !== sockets || width % sockets !== 0) throw doesNotDivide(`${width} features`, sockets);
    const block = blockOf(dtype).elements;
    if ((width / sockets) % block !== 0) throw doesNotDivide(`${width} features in blocks of ${block}`, sockets);
    if (bias !== undefined) throw new UnsupportedModelError('a bias after divided features is not supported');
  }
}

function dividedSymbols(
  program: Program,
  operators: readonly Operator[],
  types: ReadonlyMap<string, Tensor>,
): ReadonlySet<string> {
  const origins = new Map(program.values.map(({ name, origin }) => [name, origin.kind]));
  const divided = new Set<string>();
  for (const { name, access } of operators.flatMap(usesOf)) if (access !== 'read') divided.add(name);
  for (const name of [...program.outputs, ...program.recurrence.map(({ output }) => output)]) divided.delete(name);
  const groups = operators.flatMap((operator) => groupsOf(operator, types, origins));
  const groupsWith = new Map<string, Group[]>();
  for (const group of groups) {
    for (const symbol of group.symbols) {
      const known = groupsWith.get(symbol);
      if (known === undefined) groupsWith.set(symbol, [group]);
      else known.push(group);
    }
  }
  /** With all that cannot be divided without them. */
  const undivide = (...symbols: string[]): void => {
    for (let symbol = symbols.pop(); symbol !== undefined; symbol = symbols.pop()) {
      if (divided.delete(symbol)) symbols.push(...(groupsWith.get(symbol) ?? []).flatMap((group) => group.symbols));
    }
  };
  for (const { symbols, together } of groups) {
    if (!together || !symbols.every((symbol) => divided.has(symbol))) undivide(...symbols);
  }
  // What divided features are projected to is a sum over sockets, and whole after it.
  for (const operator of operators) {
    if (operator.kind === 'linear' && divided.has(operator.reads.x)) undivide(operator.writes.y);
  }
  return divided;
}

/** Symbols that can only be divided all together, or (not `together`) not at all. */
interface Group {
  readonly symbols: readonly string[];
  readonly together: boolean;
}

function groupsOf(
  operator: Operator,
  types: ReadonlyMap<string, Tensor>,
  origins: ReadonlyMap<string, string>,
): Group[] {
  const together = (...symbols: string[]): Group[] => [{ symbols, together: true }];
  const whole = (...symbols: string[]): Group[] => [{ symbols, together: false }];
  switch (operator.kind) {
    case 'linear': {
      const { x, weight } = operator.reads;
      if (origins.get(weight) !== 'checkpoint') return whole(x, operator.writes.y);
      return [...together(x), ...together(operator.writes.y)];
    }
    case 'rope':
      return together(operator.reads.x, operator.writes.y);
    case 'softcap':
      return together(operator.reads.x, operator.writes.y);
    case 'rmsNorm': {
      const { x, weight } = operator.reads;
      // A norm of every head by itself works on some heads as well; one over all features needs all.
      const perHead = types.get(weight)?.shape[0] !== types.get(x)?.shape.at(-1);
      return perHead ? together(x, operator.writes.y) : whole(x, operator.writes.y);
    }
    case 'siluMul':
    case 'geluMul':
      return together(operator.reads.gate, operator.reads.up, operator.writes.y);
    case 'attention': {
      const { q, keys, values } = operator.reads;
      return together(q, keys, values, operator.writes.y);
    }
    case 'appendKv':
      return together(operator.reads.k, operator.reads.v, operator.updates.keys, operator.updates.values);
    case 'embed':
    case 'appendToken':
    case 'ropeTable':
    case 'add':
    case 'allReduce':
    case 'allGather':
    case 'gatherRows':
    case 'sample':
    case 'advance':
      return whole(...usesOf(operator).map(({ name }) => name));
    default:
      return operator satisfies never;
  }
}
