/**
 * A program as the paper's Figure 3 has it: the schedule as pseudocode with repeating calls folded, what each kernel does,
 * how many calls that makes, and every refusal with its reason. Plain text, for people.
 */
import { baseName } from '../ir/outline.js';
import type { Argument, Call, Kernel, Loop, Name, Program, Region } from '../ir/program.js';
import { loopsOf, operatorsOf } from '../ir/visit.js';
import { defined } from '../util/assert.js';
import { foldCalls, type Fold } from './fold-calls.js';
import type { Report } from './pass.js';
import { namesOf } from './value-uses.js';

/** Longest line. */
const columns = 100;

export interface CallCounts {
  readonly perToken: number;
  /** Where one call makes many tokens: calls of a response, and the tokens of a call. */
  readonly perResponse?: { readonly calls: number; readonly tokens: number };
}

/** Kernel calls that the host makes. */
export function callsPerToken(program: Program): CallCounts {
  const calls = program.calls.length;
  const tokenLoop = program.kernels.flatMap(({ body }) => [...loopsOf(body)]).find(({ over }) => over === 'token');
  if (tokenLoop === undefined) return { perToken: calls };
  return { perToken: calls / tokenLoop.trip, perResponse: { calls, tokens: tokenLoop.trip } };
}

/** Lines of at most 100 characters. Refusals are those of `reports`. */
export function explainProgram(program: Program, reports: readonly Report[] = []): string[] {
  const refusals = reports.flatMap((report) =>
    report.refusals.map(({ reason, detail }) => `  ${report.pass}: ${reason}: ${detail}`),
  );
  const lines = [
    `schedule ${program.schedule}${program.sockets > 1 ? `, in lockstep on ${program.sockets} sockets` : ''}`,
    ...indent(scheduleLines(program)),
    countLine(program),
    '',
    ...program.kernels.flatMap(kernelLines),
    ...(refusals.length === 0 ? [] : ['', 'not looped', ...refusals]),
  ];
  return lines.map((line) => clip(line, columns));
}

function countLine(program: Program): string {
  const { perToken, perResponse } = callsPerToken(program);
  if (perResponse === undefined) return `calls per token: ${perToken}`;
  return `calls: ${perResponse.calls} per response (or per chunk of ${perResponse.tokens} tokens)`;
}

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}

function clip(line: string, width: number): string {
  return line.length <= width ? line : `${line.slice(0, width - 3)}...`;
}

function scheduleLines(program: Program): string[] {
  return foldCalls(program.calls).flatMap((fold) => {
    const calls = program.calls.slice(fold.first, fold.first + fold.period);
    const lines = calls.map((call) => callLine(program, call, fold.times > 1));
    return fold.times === 1 ? lines : [foldHeader(program, fold), ...indent(lines)];
  });
}

/** `for layer in 0..31:`, or how often where the calls do not go layer by layer. */
function foldHeader({ calls }: Program, { first, period, times }: Fold): string {
  const last = first + period * times - 1;
  const [from, to] = [calls[first]?.origin.layer, calls[last]?.origin.layer];
  const layers = new Set(calls.slice(first, last + 1).map(({ origin }) => origin.layer));
  if (from === undefined || to === undefined || layers.size !== to - from + 1) return `${times} times:`;
  const step = layers.size / times;
  return `for layer in ${from}..${to}${step === 1 ? '' : ` by ${step}`}:`;
}

/** `x = layer(x, rope, slots; 9 weights, 2 states)`; names inside a fold are those of any iteration. */
function callLine(program: Program, call: Call, folded: boolean): string {
  const kernel = defined(
    program.kernels.find(({ name }) => name === call.kernel),
    `kernel ${call.kernel}`,
  );
  const label = (argument: Argument): Name => {
    const name = defined(namesOf(argument)[0], 'a value of a stack');
    if (argument.kind === 'stack') return `${baseName(name)}[${argument.values.length}]`;
    return folded ? baseName(name) : name;
  };
  const args = kernel.params.map((param, at) => ({ ...param, argument: call.args[at]! }));
  const isData = ({ tensor }: { readonly tensor: { readonly role: string } }): boolean =>
    tensor.role === 'activation' || tensor.role === 'index';
  const written = args.filter(({ access }) => access === 'write').map(({ argument }) => label(argument));
  const read = args.filter((arg) => arg.access !== 'write' && isData(arg)).map(({ argument }) => label(argument));
  const counts = [
    countOf(
      args.filter(({ tensor }) => tensor.role === 'weight').flatMap(({ argument }) => namesOf(argument)),
      'weight',
    ),
    countOf(
      args.filter(({ tensor }) => tensor.role === 'state').flatMap(({ argument }) => namesOf(argument)),
      'state',
    ),
  ].filter((text) => text !== '');
  const inside = [read.join(', '), counts.join(', ')].filter((text) => text !== '').join('; ');
  return `${written.length === 0 ? '' : `${written.join(', ')} = `}${kernel.name}(${inside})`;
}

function countOf(names: readonly Name[], what: string): string {
  const count = new Set(names).size;
  return count === 0 ? '' : `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** On one line where the kernel is one operation of the schedule; else with what it was put together from. */
function kernelLines({ name, body }: Kernel): string[] {
  const kinds = body.statements.map(({ kind }) => kind);
  if (body.segments.length === 1 && !kinds.includes('loop')) return [`kernel ${name}: ${kinds.join(', ')}`];
  return [`kernel ${name}: ${[...operatorsOf(body)].length} operators`, ...indent(regionLines(body))];
}

/** A line for each segment with its operators; loops with their bodies. */
function regionLines(region: Region): string[] {
  let position = 0;
  const width = Math.max(...region.segments.map(({ kernel }) => kernel.length));
  return region.segments.flatMap((segment) => {
    const statements = region.statements.slice(position, position + segment.statements);
    position += segment.statements;
    const loops = statements.filter((statement) => statement.kind === 'loop');
    if (loops.length > 0) return loops.flatMap(loopLines);
    return [`${segment.kernel.padEnd(width)}  ${statements.map(({ kind }) => kind).join(', ')}`];
  });
}

function loopLines({ over, trip, until, bindings, body }: Loop): string[] {
  const list = (kind: 'carried' | 'stacked' | 'invariant'): string[] => {
    const names = bindings.filter((binding) => binding.kind === kind).map(({ name }) => name);
    return names.length === 0 ? [] : [`${kind}: ${names.join(', ')}`];
  };
  const stop = until === undefined ? '' : `, until ${until}`;
  return [
    `for ${over} in 0..${trip - 1}${stop}:`,
    ...indent([...list('carried'), ...list('stacked'), ...list('invariant'), ...regionLines(body)]),
  ];
}
