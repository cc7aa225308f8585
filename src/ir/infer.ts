/**
 * Types of the names of a scope, from the operators' own rules. A loop body is a scope of its own: `loopScope` makes its
 * names from the bindings, `loopResults` the names that the loop leaves outside.
 */
import { TypeMismatch } from '../ops/definition.js';
import { definitionOf } from '../ops/index.js';
import type { Kernel, Loop, Name, Region, Tensor } from './program.js';
import { formatTensor, sameTensor, sliceTensor, stackTensor } from './tensor.js';

export type Types = ReadonlyMap<Name, Tensor>;

/** Types of the parameters, locals and results of a kernel, loop bodies excluded. @throws TypeMismatch */
export function inferKernel(kernel: Kernel): Map<Name, Tensor> {
  return inferRegion(kernel.body, new Map(kernel.params.map(({ name, tensor }) => [name, tensor])));
}

/** Types of all names in the scope of `region`: those of `env`, and what the statements write. @throws TypeMismatch */
export function inferRegion(region: Region, env: Types): Map<Name, Tensor> {
  const types = new Map(env);
  for (const statement of region.statements) {
    if (statement.kind === 'loop') {
      for (const [name, tensor] of loopResults(statement, types)) types.set(name, tensor);
    } else {
      // What is written is declared beforehand only for parameters; the operator decides its type.
      const written = definitionOf(statement.kind).infer(statement, (name) => typeIn(types, name));
      for (const [name, tensor] of Object.entries(written)) types.set(name, tensor);
    }
  }
  return types;
}

/** What the bindings bring into the body of a loop: everything but what the body writes itself. @throws TypeMismatch */
export function loopScope(loop: Loop, outer: Types): Map<Name, Tensor> {
  const types = new Map<Name, Tensor>();
  for (const binding of loop.bindings) {
    if (binding.kind !== 'stacked') types.set(binding.name, typeIn(outer, binding.outer));
    else if (binding.access !== 'write') types.set(binding.name, sliceOf(loop, binding.outer, outer));
  }
  return types;
}

/** Types of all names in the body of a loop. @throws TypeMismatch */
export function inferLoop(loop: Loop, outer: Types): Map<Name, Tensor> {
  return inferRegion(loop.body, loopScope(loop, outer));
}

/** What a loop writes in the scope that it stands in. @throws TypeMismatch where a carried value changes its type. */
function loopResults(loop: Loop, outer: Types): Map<Name, Tensor> {
  const inner = inferLoop(loop, outer);
  const results = new Map<Name, Tensor>();
  for (const binding of loop.bindings) {
    if (binding.kind === 'stacked' && binding.access === 'write') {
      results.set(binding.outer, stackTensor(typeIn(inner, binding.name), loop.trip));
    }
    if (binding.kind !== 'carried') continue;
    const [first, next] = [typeIn(inner, binding.name), typeIn(inner, binding.next)];
    if (!sameTensor(first, next)) {
      const types = `${formatTensor(first)} and ${formatTensor(next)}`;
      throw new TypeMismatch(`loop: ${binding.name} and its next value ${binding.next} have different types, ${types}`);
    }
    if (binding.final !== undefined) results.set(binding.final, next);
  }
  if (loop.until !== undefined) typeIn(inner, loop.until);
  return results;
}

function sliceOf(loop: Loop, name: Name, outer: Types): Tensor {
  const stack = typeIn(outer, name);
  if (stack.shape[0] !== loop.trip) {
    throw new TypeMismatch(`loop: ${name} is ${formatTensor(stack)}, not a stack of ${loop.trip}`);
  }
  return sliceTensor(stack);
}

function typeIn(types: Types, name: Name): Tensor {
  const tensor = types.get(name);
  if (tensor === undefined) throw new TypeMismatch(`${name} is read before it is written`);
  return tensor;
}
