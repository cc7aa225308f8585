/** Reads the text form of kernel bodies: annotations, operators, loops. */
import { definitionOf, operators } from '../ops/index.js';
import { defined } from '../util/assert.js';
import type {
  Access,
  Binding,
  HandOff,
  Loop,
  LoopBuffer,
  LoopPipeline,
  Name,
  Operator,
  OperatorKind,
  Region,
  Segment,
  Stage,
  Statement,
  StreamedRead,
} from './program.js';
import type { TokenReader } from './token-reader.js';

/** More than any program has; keeps the parser's own recursion short. */
const deepestLoop = 16;

type Open<T> = { -readonly [K in keyof T]: T[K] };

/** `{ annotations and statements }`. @throws ParseError */
export function parseRegion(reader: TokenReader, depth = 0): Region {
  const statements: Statement[] = [];
  const segments: Open<Segment>[] = [];
  const stages: Open<Stage>[] = [];
  const replicated: Name[] = [];
  const handOffs: HandOff[] = [];
  const plan = { present: false };
  const annotation = (): void => {
    const word = reader.oneOf(['plan', 'replicated', 'hand_off', 'segment', 'stage']);
    if (word === 'plan') plan.present = true;
    else if (word === 'segment') segments.push({ kernel: reader.name(), statements: 0 });
    else if (!plan.present) throw reader.error(`@${word} stands before @plan`);
    else if (word === 'replicated') replicated.push(reader.name());
    else if (word === 'hand_off') handOffs.push(parseHandOff(reader));
    else {
      const split = (): Stage['split'] => reader.oneOf(['features', 'heads', 'context', 'single', 'loop']);
      stages.push({ name: reader.name(), statements: 0, split: split() });
    }
  };
  reader.expect('{');
  while (!reader.accept('}')) {
    if (reader.accept('@')) annotation();
    else {
      statements.push(parseStatement(reader, depth));
      for (const parts of [segments, stages]) {
        const part = parts.at(-1);
        if (part !== undefined) part.statements++;
      }
    }
  }
  return { statements, segments, ...(plan.present ? { plan: { stages, replicated, handOffs } } : {}) };
}

function parseHandOff(reader: TokenReader): HandOff {
  const from = reader.count();
  reader.expect('->');
  const to = reader.count();
  reader.expect('distance');
  return { from, to, distance: reader.count() };
}

function parseStatement(reader: TokenReader, depth: number): Statement {
  // A name that is written is followed by a mark, the word `for` of a loop by a name.
  if (!reader.is('for') || reader.peek(1).kind !== 'name') return parseOperator(reader);
  if (depth >= deepestLoop) throw reader.error(`loops are nested deeper than ${deepestLoop}`);
  return parseLoop(reader, depth);
}

function parseOperator(reader: TokenReader): Operator {
  let names = [reader.name('a statement')];
  const rest = (): void => {
    while (reader.accept(',')) names.push(reader.name());
  };
  let written: Name[] = [];
  let updated: Name[] = [];
  rest();
  if (reader.accept('=')) {
    written = names;
    names = [reader.name('an operator')];
    rest();
  }
  if (reader.accept('<-')) {
    updated = names;
    names = [reader.name('an operator')];
  }
  const [kind] = names;
  if (kind === undefined || names.length !== 1 || !Object.hasOwn(operators, kind)) {
    throw reader.error(`there is no operator ${names.join(', ')}`);
  }
  const definition = definitionOf(kind as OperatorKind);
  const named = (given: readonly Name[], keys: readonly string[], what: string): Record<string, Name> => {
    if (given.length !== keys.length) throw reader.error(`${kind} ${what} ${keys.length} names, not ${given.length}`);
    return Object.fromEntries(keys.map((key, index) => [key, defined(given[index], key)]));
  };
  const writes = named(written, definition.writes, 'writes');
  const updates = named(updated, definition.updates, 'updates');
  reader.expect('(');
  const { positional, optional } = parseOperands(reader, definition.optionalReads);
  const reads = { ...named(positional, definition.reads, 'reads'), ...optional };
  const attributes = parseAttributes(reader, definition.attributes);
  reader.expect(')');
  // Kind and operand records belong together by the definition that was just followed.
  return { kind, reads, writes, updates, attributes } as unknown as Operator;
}

/** `a, b, key: c` up to `;` or `)`. */
function parseOperands(reader: TokenReader, keys: readonly string[]) {
  const positional: Name[] = [];
  const optional: Record<string, Name> = {};
  while (!reader.is(';') && !reader.is(')')) {
    const name = reader.name();
    if (!reader.accept(':')) positional.push(name);
    else if (keys.includes(name) && optional[name] === undefined) optional[name] = reader.name();
    else throw reader.error(`no operand can be called ${name} here`);
    if (!reader.accept(',')) break;
  }
  return { positional, optional };
}

/** `; key value, key value`, every key of the operator in its order. */
function parseAttributes(reader: TokenReader, kinds: Readonly<Record<string, 'number' | 'string'>>) {
  const attributes: Record<string, number | string> = {};
  Object.entries(kinds).forEach(([key, kind], index) => {
    reader.expect(index === 0 ? ';' : ',');
    reader.expect(key);
    attributes[key] = kind === 'number' ? reader.number() : reader.string();
  });
  return attributes;
}

function parseLoop(reader: TokenReader, depth: number): Loop {
  reader.expect('for');
  const over = reader.name();
  reader.expect('in');
  const trip = reader.count();
  reader.expect('(');
  const bindings = reader.list(')', () => parseBinding(reader, over));
  return {
    kind: 'loop',
    over,
    trip,
    ...(reader.accept('until') ? { until: reader.name() } : {}),
    bindings,
    ...(reader.accept('pipeline') ? { pipeline: parsePipeline(reader) } : {}),
    body: parseRegion(reader, depth + 1),
  };
}

function parseBinding(reader: TokenReader, over: Name): Binding {
  const kind = reader.oneOf(['invariant', 'stacked', 'carried']);
  const access = (words: readonly Access[]): Access => reader.oneOf(words);
  const name = (): Name => reader.name();
  const outer = (): Name => {
    reader.expect('=');
    return name();
  };
  switch (kind) {
    case 'invariant':
      return { kind, access: reader.oneOf(['read', 'update']), name: name(), outer: outer() };
    case 'stacked': {
      const binding: Binding = { kind, access: access(['read', 'write', 'update']), name: name(), outer: outer() };
      for (const word of ['[', over, ']']) reader.expect(word);
      return binding;
    }
    case 'carried': {
      const first = { kind, name: name(), outer: outer() } as const;
      reader.expect('then');
      return { ...first, next: name(), ...(reader.accept('into') ? { final: name() } : {}) };
    }
    default:
      return kind satisfies never;
  }
}

function parsePipeline(reader: TokenReader): LoopPipeline {
  const buffers: LoopBuffer[] = [];
  const stream: StreamedRead[] = [];
  const counted = (word: string): number => {
    reader.expect(word);
    return reader.count();
  };
  reader.expect('(');
  const sizes = { tileBytes: counted('tile'), depth: counted('depth'), slots: counted('slots') };
  reader.accept(',');
  reader.list(')', () => {
    const kind = reader.oneOf(['buffer', 'stream']);
    const name = reader.name();
    if (kind === 'stream') {
      stream.push({ name, stage: counted('stage'), bytes: counted('bytes') });
      return;
    }
    const buffer = { name, copies: counted('copies'), bytes: counted('bytes') };
    reader.expect('in');
    buffers.push({ ...buffer, memory: reader.string() });
  });
  return { buffers, stream, ...sizes };
}
