/**
 * unroll: the inverse of kernel looping, computed from the loop alone. A call of a looped kernel becomes the calls it
 * stands for: slices of the stacks, the values handed from iteration to iteration, one call for each segment of the body.
 *
 *   decoder([w.0, w.1], x.0, x.2)      -->      layer(w.0, x.0, x.1); layer(w.1, x.1, x.2)
 *
 * unfuse: the inverse of fusion, by the segments that a kernel was put together from.
 */
import { baseName } from '../ir/outline.js';
import type { Argument, Call, Kernel, Loop, Name, Program, Schedule } from '../ir/program.js';
import { inferKernel, inferLoop } from '../ir/infer.js';
import { loopsOf } from '../ir/visit.js';
import { assert, defined } from '../util/assert.js';
import { CallSplitter, partsOf, type Part } from './split-region.js';
import { dropUnused } from './unused.js';
import { namesOf } from './value-uses.js';

/** Every call of a kernel that is one loop becomes the calls of its iterations; loops inside the body stay. */
export function unroll(program: Program): Program {
  const splitter = new CallSplitter(program);
  const calls = program.calls.flatMap((call) => {
    const kernel = kernelOf(program, call);
    const [statement, ...more] = kernel.body.statements;
    if (statement?.kind !== 'loop' || more.length > 0) return [call];
    return unrollCall(splitter, kernel, statement, call);
  });
  return finish(splitter, calls);
}

/** Every call of a kernel with several segments becomes a call for each. */
export function unfuse(program: Program): Program {
  const splitter = new CallSplitter(program);
  const calls = program.calls.flatMap((call) => {
    const kernel = kernelOf(program, call);
    if (kernel.body.segments.length < 2) return [call];
    const args = new Map(kernel.params.map(({ name }, at) => [name, call.args[at]!]));
    const suffix = call.origin.layer === undefined ? '' : `.${call.origin.layer}`;
    const parts = splitter.split(partsOf(kernel.body), inferKernel(kernel), (name) => args.get(name), suffix);
    return parts.map((part) => ({ ...part, origin: call.origin }));
  });
  return finish(splitter, calls);
}

function kernelOf(program: Program, call: Call): Kernel {
  return defined(
    program.kernels.find(({ name }) => name === call.kernel),
    `kernel ${call.kernel}`,
  );
}

function finish(splitter: CallSplitter, calls: readonly Call[]): Program {
  const program = dropUnused(splitter.finish(calls));
  return { ...program, schedule: scheduleOf(program) };
}

function scheduleOf({ kernels, calls }: Program): Schedule {
  const loops = kernels.flatMap(({ body }) => [...loopsOf(body)]);
  if (loops.some(({ over }) => over === 'token')) return 'response';
  if (loops.length > 0) return 'looped';
  const layers = calls.flatMap(({ origin }) => (origin.layer === undefined ? [] : [origin.layer]));
  return new Set(layers).size < layers.length ? 'operator' : 'layer';
}

/** The calls that an iteration is: one where the loop says so, else one for each segment of the body (see loop-calls). */
function iterationParts(kernel: Kernel, { body }: Loop): Part[] {
  const repeated = defined(kernel.body.segments[0], 'segment of a loop').kernel;
  if (repeated === kernel.name) return partsOf(body);
  return [{ kernel: repeated, statements: body.statements, segments: body.segments }];
}

function unrollCall(splitter: CallSplitter, kernel: Kernel, loop: Loop, call: Call): Call[] {
  const types = inferLoop(loop, inferKernel(kernel));
  const args = new Map(kernel.params.map(({ name }, at) => [name, call.args[at]!]));
  const outer = (name: Name): Argument => defined(args.get(name), `argument ${name}`);
  const parts = iterationParts(kernel, loop);
  const mark = loop.over === 'token' ? '.t' : '.';
  const carried = new Map<Name, Argument>();
  for (const binding of loop.bindings) if (binding.kind === 'carried') carried.set(binding.name, outer(binding.outer));

  const calls: Call[] = [];
  for (let iteration = 0; iteration < loop.trip; iteration++) {
    const scope = new Map(carried);
    for (const binding of loop.bindings) {
      if (binding.kind === 'invariant') scope.set(binding.name, outer(binding.outer));
      else if (binding.kind === 'stacked') scope.set(binding.name, sliceArgument(outer(binding.outer), iteration));
      else if (iteration < loop.trip - 1) {
        const base = baseName(namesOf(outer(binding.outer))[0]!);
        const type = defined(types.get(binding.next), binding.next);
        scope.set(binding.next, splitter.temporary(base, `${mark}${iteration + 1}`, type));
      } else if (binding.final !== undefined) scope.set(binding.next, outer(binding.final));
    }
    const split = splitter.split(parts, types, (name) => scope.get(name), `${mark}${iteration}`);
    calls.push(...(loop.over === 'layer' ? withLayers(loop, split, scope) : split));
    for (const binding of loop.bindings) {
      const next = binding.kind === 'carried' ? scope.get(binding.next) : undefined;
      if (next !== undefined) carried.set(binding.name, next);
    }
  }
  return calls;
}

function sliceArgument(argument: Argument, index: number): Argument {
  assert(argument.kind === 'stack', 'a stacked parameter is given a stack');
  return { kind: 'value', value: defined(argument.values[index], `slice ${index} of a stack`) };
}

/** Calls with the layer that their slices of stacks belong to by name; those without any go with the call before. */
function withLayers(loop: Loop, calls: readonly Call[], scope: ReadonlyMap<Name, Argument>): Call[] {
  const stacked = new Set<Name>();
  for (const { kind, name } of loop.bindings)
    if (kind === 'stacked') for (const value of namesOf(scope.get(name)!)) stacked.add(value);
  const found = calls.map(({ args }) => {
    const value = args.flatMap(namesOf).find((name) => stacked.has(name));
    const suffix = value === undefined ? undefined : /\.(\d+)$/.exec(value)?.[1];
    return suffix === undefined ? undefined : Number(suffix);
  });
  let layer = found.find((number) => number !== undefined);
  return calls.map((call, index) => {
    layer = found[index] ?? layer;
    return layer === undefined ? call : { ...call, origin: { layer } };
  });
}
