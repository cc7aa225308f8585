/**
 * One stage -> the block's part of it. Divided by features: the units of all chains of operators of the stage lie side by
 * side (q 8 | k 2 | v 2), and every block has an equal part of them, whatever matrices it cuts. Divided by heads: items of a
 * key/value head and a span of positions go round the blocks. Threads of a block wait for each other only between an operator
 * that writes and one that reads, or where two use the same work space.
 */
import type { Name, Operator } from '../../../ir/program.js';
import { isKind, usesOf } from '../../../ir/visit.js';
import { divisionOf, featureUnit, kvHeadsOf, type Division } from '../../../passes/plan-stages.js';
import { assert, defined } from '../../../util/assert.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import { Allocator, bytesAtLimits } from '../../memory-map.js';
import { Inputs } from './inputs.js';
import { cName, countOf, dimension, elementType } from './names.js';
import { emitters } from './operators.js';
import { maxBlocks, maxKvHeads } from '../target.js';
import { OperatorContext, type Scope, type StageScope } from './scope.js';

/** The compute warps' side. */
export function emitStage(at: StageScope): void {
  const { writer } = at.emission;
  writer.block('', () => {
    if (at.stage.split === 'heads') emitItems(at);
    else emitParts(at);
  });
}

/** The side of the warp that fetches weights: the same matrices and tiles in the same order. */
export function emitStream(at: StageScope): void {
  const { operators, names, emission } = at;
  const linears = operators.filter((operator) => isKind(operator, 'linear'));
  if (linears.length === 0) return;
  emission.writer.block('', () => {
    const tiles = declareUnits(at);
    for (const operator of linears) {
      const { reads, writes } = operator;
      const { dtype: format, shape } = defined(names.types.get(reads.weight), reads.weight);
      const rows = defined(names.types.get(writes.y)?.shape[0], 'rows');
      const units = defined(tiles.get(operator), 'tiles of a matrix');
      const source = defined(names.c.get(reads.weight), reads.weight);
      emission.ring.copy({ format, rows, width: Number(shape[1]), units }, source);
    }
  });
}

function emitParts(at: StageScope): void {
  const tiles = declareUnits(at);
  const own = new Allocator();
  const madeRows = at.emission.layout.wideRows > 0 ? leadingOfOwn(at) : undefined;
  declareOwn(at, own, madeRows);
  const inputs = new Inputs(at, own);
  at.emission.needOwn(own.size);
  emitOperators(at, tiles, { inputs, madeRows });
}

/** For each key/value head, and each span of positions where there is attention. */
function emitItems(at: StageScope): void {
  const { stage, operators, region, names, emission } = at;
  const { writer, layout } = emission;
  assert(!operators.some((operator) => isKind(operator, 'linear')), `${stage.name}: no matrices divided by heads`);
  const attention = operators.find((operator) => isKind(operator, 'attention'));
  const heads = defined(kvHeadsOf(region.statements, names.types), 'key/value heads').count;
  assert(heads <= maxKvHeads, `${heads} key/value heads, and counters for ${maxKvHeads}`);
  if (attention === undefined) {
    writer.line('const int spans = 1;');
  } else {
    const { positions } = attention.reads;
    const rows = dimension(defined(names.types.get(positions)?.shape[0], 'rows'));
    writer.line(
      `const int spans = spans_of(${defined(names.c.get(positions), positions)}, ${rows}, ${layout.spanLength});`,
    );
  }
  const own = new Allocator();
  declareOwn(at, own);
  emission.needOwn(own.size);
  emission.ring.apart(`for (int i = me->block; i < ${heads} * spans; i += me->blocks)`, () => {
    writer.line(`const span item = {i % ${heads}, i / ${heads}, spans};`);
    emitOperators(at, new Map(), { hasSpans: attention !== undefined });
    writer.line('compute_sync();');
  });
}

/** What one form of a stage has and the other has not. */
interface Form {
  readonly inputs?: Inputs;
  /** See Scope. */
  readonly madeRows?: 'rows' | 'samples' | undefined;
  readonly hasSpans?: boolean;
}

function emitOperators(at: StageScope, tiles: ReadonlyMap<Operator, string>, form: Form): void {
  const { inputs, madeRows } = form;
  const { stage, operators, region, names, emission } = at;
  const plan = defined(region.plan, 'a plan of the region');
  // Written since the last barrier.
  const dirty = new Set(inputs?.ready);
  let last: Operator | undefined;
  const sync = (): void => {
    emission.writer.line('compute_sync();');
    dirty.clear();
    last = undefined;
  };
  let unshared = false;
  for (const operator of operators) {
    const division = divisionOf(operator, stage, plan, names.types);
    if (unshared && madeRows !== undefined && division !== 'replicated') {
      const place = emission.numberOf(`${at.where}, stage ${stage.name}, rows that blocks share out`);
      emission.ring.shareRows(place, madeRows);
    }
    unshared = division === 'replicated';
    const reads = usesOf(operator).filter(({ access }) => access !== 'write');
    const afterWork = last !== undefined && usesWorkSpace(last) && usesWorkSpace(operator);
    const alternates = last !== undefined && isKind(last, 'linear') && isKind(operator, 'linear');
    if (reads.some(({ name }) => dirty.has(name)) || (afterWork && !alternates)) sync();
    const late = isKind(operator, 'linear') ? inputs?.lateRows(operator) : undefined;
    if (late !== undefined) {
      emission.writer.line(late);
      sync();
    }
    const own = isKind(operator, 'linear') && inputs !== undefined ? inputs.namesFor(operator) : names.c;
    const context = new OperatorContext(operatorScope(at, own, form), division, tiles.get(operator), emission.writer);
    // Kind and operator agree; the table of emitters has one for each.
    const emitter = emitters[operator.kind] as (operator: Operator, at: OperatorContext) => void;
    emitter(operator, context);
    for (const { name, access } of usesOf(operator)) if (access !== 'read') dirty.add(name);
    last = operator;
  }
}

function usesWorkSpace({ kind }: Operator): boolean {
  return kind === 'linear' || kind === 'rmsNorm' || kind === 'attention' || kind === 'sample';
}

function operatorScope(at: StageScope, names: ReadonlyMap<Name, string>, { madeRows, hasSpans = false }: Form): Scope {
  const { region, emission } = at;
  const { program, layout, scratch, numberOf, ring } = emission;
  const { rows, samples, context } = program.limits;
  return {
    types: at.names.types,
    names,
    madeRows,
    kvHeads: kvHeadsOf(region.statements, at.names.types)?.count,
    hasSpans,
    layout,
    context,
    maxRows: Math.max(rows, samples),
    scratch,
    blocks: maxBlocks,
    ring,
    handOff: (what) => ring.handOff(numberOf(`${at.where}, stage ${at.stage.name}, ${what}`)),
  };
}

/** The block's tiles of every operator that is divided by features. */
function declareUnits(at: StageScope): Map<Operator, string> {
  const chains = chainsOf(at);
  const { ring } = at.emission;
  const total = chains.reduce((sum, { units }) => sum + units, 0);
  const tiles = new Map<Operator, string>();
  if (chains.length === 0) return tiles;
  const parts = chains.map(({ operators, units }) => `${operators[0]!.kind} ${units}`);
  ring.part('units', total, parts.join(', '));
  let first = 0;
  chains.forEach(({ operators, units }, index) => {
    const name = chains.length === 1 ? 'units' : `part_${index}`;
    if (chains.length > 1) ring.within(name, 'units', first, units);
    for (const operator of operators) tiles.set(operator, name);
    first += units;
  });
  return tiles;
}

/** Operators of a stage that must be divided alike, since one reads what another writes. */
interface Chain {
  readonly operators: readonly Operator[];
  readonly units: number;
}

function chainsOf({ stage, operators, region, names }: StageScope): Chain[] {
  const plan = defined(region.plan, 'a plan of the region');
  const chains: { operators: Operator[]; written: Set<Name>; units: number }[] = [];
  for (const operator of operators) {
    const division: Division = divisionOf(operator, stage, plan, names.types);
    if (division !== 'features') continue;
    const uses = usesOf(operator);
    const written = uses.filter(({ access }) => access === 'write').map(({ name }) => name);
    const width = names.types.get(defined(written[0], 'a result'))?.shape.at(-1);
    assert(typeof width === 'number', `${operator.kind}: a fixed width`);
    const units = Math.ceil(width / featureUnit);
    const joined = chains.filter((chain) => uses.some(({ name }) => chain.written.has(name)));
    assert(
      joined.every((chain) => chain.units === units),
      `${operator.kind}: divided like what it reads`,
    );
    const merged = {
      operators: [...joined.flatMap((chain) => chain.operators), operator],
      written: new Set([...joined.flatMap((chain) => [...chain.written]), ...written]),
      units,
    };
    const place = joined.length === 0 ? chains.length : chains.indexOf(joined[0]!);
    chains.splice(place, 0, merged);
    for (const chain of joined) chains.splice(chains.indexOf(chain), 1);
  }
  return chains;
}

/** What a block keeps to itself in this stage. */
function ownOf({ operators, ownNames }: StageScope): Name[] {
  const written = operators.flatMap(usesOf).filter(({ access, name }) => access === 'write' && ownNames.has(name));
  return written.map(({ name }) => name);
}

/** The leading dimension of that, which is one for a stage; undefined where there is nothing. */
function leadingOfOwn(at: StageScope): 'rows' | 'samples' | undefined {
  const leading = new Set(ownOf(at).map((name) => defined(at.names.types.get(name), name).shape[0]));
  assert(leading.size <= 1, `${at.stage.name}: one number of rows`);
  const [dim] = leading;
  return typeof dim === 'string' ? dim : undefined;
}

/** Room for what a block keeps to itself. @param madeRows where many rows are shared out, and lie where all can reach them */
function declareOwn(at: StageScope, own: Allocator, madeRows?: 'rows' | 'samples'): void {
  const { names, emission } = at;
  const { program, scratch, writer } = emission;
  if (madeRows !== undefined) writer.line(`const range made = rows_of(me, ${dimension(madeRows)});`);
  for (const name of ownOf(at)) {
    const tensor = defined(names.types.get(name), `type of ${name}`);
    assert(elementType(tensor) === 'float', `${name} is made of floats`);
    const local = `own_${cName(name)}`;
    names.c.set(name, local);
    const [bytes, floats] = [bytesAtLimits(tensor, program), countOf(tensor.shape)];
    const room =
      madeRows === undefined
        ? `own_rows(me, ${floats}, ${own.take(bytes)})`
        : `made_rows(me, ${dimension(madeRows)}, ${floats}, ${own.take(bytes)}, ${scratch.take(bytes)})`;
    writer.line(`float *${local} = ${room};`);
  }
}

/** A line that names what follows. */
export function comment(writer: CodeWriter, text: string): void {
  writer.line(`/* ${text} */`);
}
