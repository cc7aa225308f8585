/**
 * The text form of a program: values, kernels, calls, results. Deterministic, and read back by parse.ts. Statements are
 * `written = updated <- operator(operands; attributes)`, with the types of what is written as a comment:
 *
 *     q = linear(h, w_q) // f32[rows, 4096]
 *     keys, values <- appendKv(k_rot, v, slots, positions)
 *     for layer in 32 (carried x = x_in then y into x_out, stacked read w_q = w_q[layer]) { ... }
 *
 * Lines with `@` tell what statements were (`@segment`) and how workers share them (`@stage`).
 */
import { TypeMismatch } from '../ops/definition.js';
import { definitionOf } from '../ops/index.js';
import { defined } from '../util/assert.js';
import { inferKernel, inferLoop, type Types } from './infer.js';
import type {
  Binding,
  Call,
  Kernel,
  Loop,
  LoopPipeline,
  Name,
  Operator,
  Program,
  Region,
  Statement,
  Tensor,
  Value,
} from './program.js';
import { formatTensor } from './tensor.js';

/** The whole program, ending in a line break. */
export function print(program: Program): string {
  const { limits } = program;
  const lines = [
    `program ${quote(program.name)} schedule ${program.schedule} sockets ${program.sockets}`,
    `limits rows ${limits.rows} samples ${limits.samples} slots ${limits.slots} context ${limits.context}`,
    '',
    ...program.values.map(printValue),
    '',
    ...program.kernels.flatMap((kernel) => [...kernelLines(kernel), '']),
    ...program.calls.map(printCall),
    '',
    ...program.outputs.map((name) => `output ${name}`),
    ...program.recurrence.map(({ output, input }) => `recur ${output} -> ${input}`),
  ];
  return `${lines.join('\n')}\n`;
}

/** One statement on one line: an operator as it is, a loop without its body. */
export function printStatement(statement: Statement): string {
  if (statement.kind !== 'loop') return printOperator(statement);
  const bindings = statement.bindings.map((binding) => printBinding(binding, statement.over)).join(', ');
  return `for ${statement.over} in ${statement.trip} (${bindings})${printUntil(statement)}`;
}

function quote(text: string): string {
  // The two line separators of JSON strings would break lines in some editors.
  return JSON.stringify(text).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029');
}

/** Numbers as JavaScript reads them back, the sign of zero kept. */
function number(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value);
}

function printTensor(tensor: Tensor): string {
  return `${formatTensor(tensor)} ${tensor.role}`;
}

function printValue({ name, tensor, origin }: Value): string {
  const line = `${origin.kind} ${name}: ${printTensor(tensor)}`;
  switch (origin.kind) {
    case 'input':
    case 'state':
    case 'temporary':
      return line;
    case 'constant':
      return `${line} = [${origin.data.map(number).join(', ')}]`;
    case 'checkpoint': {
      const { rows, shard, placement } = origin;
      return [
        `${line} = ${quote(origin.tensor)}`,
        rows === undefined ? '' : ` rows ${rows.first} count ${rows.count}`,
        shard === undefined ? '' : ` shard axis ${shard.axis} parts ${shard.parts} replicas ${shard.replicas}`,
        placement === undefined ? '' : ` place ${placement.offset} bytes ${placement.bytes} ${placement.form}`,
      ].join('');
    }
    default:
      return origin satisfies never;
  }
}

function printCall({ kernel, args, origin }: Call): string {
  const texts = args.map((arg) => (arg.kind === 'value' ? arg.value : `[${arg.values.join(', ')}]`));
  return `call ${kernel}(${texts.join(', ')})${origin.layer === undefined ? '' : ` layer ${origin.layer}`}`;
}

function kernelLines(kernel: Kernel): string[] {
  return [
    `kernel ${kernel.name} (`,
    ...kernel.params.map(({ name, tensor, access }) => `  ${access} ${name}: ${printTensor(tensor)},`),
    ') {',
    ...indent(
      regionLines(
        kernel.body,
        typesOr(() => inferKernel(kernel)),
      ),
    ),
    '}',
  ];
}

/** Types are only comments: a program that breaks their rules can be printed, too. */
function typesOr(infer: () => Types): Types {
  try {
    return infer();
  } catch (error) {
    if (error instanceof TypeMismatch) return new Map();
    throw error;
  }
}

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}

function regionLines(region: Region, types: Types): string[] {
  const { plan } = region;
  const marks = new Map<number, string[]>();
  const mark = (at: number, line: string): void => void marks.set(at, [...(marks.get(at) ?? []), line]);
  let at = 0;
  for (const { kernel, statements } of region.segments) {
    mark(at, `@segment ${kernel}`);
    at += statements;
  }
  at = 0;
  for (const { name, statements, split } of plan?.stages ?? []) {
    mark(at, `@stage ${name} ${split}`);
    at += statements;
  }
  return [
    ...(plan === undefined ? [] : ['@plan']),
    ...(plan?.replicated ?? []).map((name) => `@replicated ${name}`),
    ...(plan?.handOffs ?? []).map(({ from, to, distance }) => `@hand_off ${from} -> ${to} distance ${distance}`),
    ...region.statements.flatMap((statement, index) => [
      ...(marks.get(index) ?? []),
      ...(statement.kind === 'loop' ? loopLines(statement, types) : [operatorLine(statement, types)]),
    ]),
  ];
}

function operatorLine(operator: Operator, types: Types): string {
  const written = Object.values<Name>(operator.writes).flatMap((name) => types.get(name) ?? []);
  const comment = written.length === 0 ? '' : ` // ${written.map(formatTensor).join(', ')}`;
  return `${printOperator(operator)}${comment}`;
}

function printOperator(operator: Operator): string {
  const definition = definitionOf(operator.kind);
  const names = (operands: Readonly<Record<string, Name>>, keys: readonly string[]): string[] =>
    keys.map((key) => defined(operands[key], `${operator.kind} ${key}`));
  const written = names(operator.writes, definition.writes).join(', ');
  const updated = names(operator.updates, definition.updates).join(', ');
  const reads: Readonly<Record<string, Name>> = operator.reads;
  const optional = definition.optionalReads.filter((key) => reads[key] !== undefined);
  const operands = [...names(reads, definition.reads), ...optional.map((key) => `${key}: ${reads[key] ?? ''}`)];
  const given: Readonly<Record<string, number | string>> = operator.attributes;
  const attributes = Object.keys(definition.attributes).map((key) => {
    const value = defined(given[key], `${operator.kind} ${key}`);
    return `${key} ${typeof value === 'number' ? number(value) : quote(value)}`;
  });
  return [
    written === '' ? '' : `${written} = `,
    updated === '' ? '' : `${updated} <- `,
    `${operator.kind}(${operands.join(', ')}`,
    attributes.length === 0 ? ')' : `; ${attributes.join(', ')})`,
  ].join('');
}

function loopLines(loop: Loop, types: Types): string[] {
  const inner = types.size === 0 ? types : typesOr(() => inferLoop(loop, types));
  return [
    `for ${loop.over} in ${loop.trip} (`,
    ...indent(loop.bindings.map((binding) => `${printBinding(binding, loop.over)},`)),
    `)${printUntil(loop)}${loop.pipeline === undefined ? '' : ' pipeline ('}`,
    ...(loop.pipeline === undefined ? [] : [...indent(pipelineLines(loop.pipeline)), ')']),
    '{',
    ...indent(regionLines(loop.body, inner)),
    '}',
  ];
}

function printUntil({ until }: Loop): string {
  return until === undefined ? '' : ` until ${until}`;
}

function printBinding(binding: Binding, over: Name): string {
  switch (binding.kind) {
    case 'invariant':
      return `invariant ${binding.access} ${binding.name} = ${binding.outer}`;
    case 'stacked':
      return `stacked ${binding.access} ${binding.name} = ${binding.outer}[${over}]`;
    case 'carried': {
      const final = binding.final === undefined ? '' : ` into ${binding.final}`;
      return `carried ${binding.name} = ${binding.outer} then ${binding.next}${final}`;
    }
    default:
      return binding satisfies never;
  }
}

function pipelineLines({ buffers, stream, tileBytes, depth, slots }: LoopPipeline): string[] {
  return [
    `tile ${tileBytes} depth ${depth} slots ${slots},`,
    ...buffers.map(
      ({ name, copies, bytes, memory }) => `buffer ${name} copies ${copies} bytes ${bytes} in ${quote(memory)},`,
    ),
    ...stream.map(({ name, stage, bytes }) => `stream ${name} stage ${stage} bytes ${bytes},`),
  ];
}
