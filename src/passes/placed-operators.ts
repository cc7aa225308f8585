/**
 * A program seen as operators over values: the bodies of its calls with arguments put in place of parameters. Locals get a
 * suffix that no value has, so that every symbol means one thing in the whole program.
 */
import type { Name, Operator, Program, Tensor } from '../ir/program.js';
import { renameStatement } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import { assert, defined } from '../util/assert.js';

/** Operators of one call, in order. */
export interface PlacedCall {
  readonly kernel: Name;
  readonly layer: number | undefined;
  readonly operators: readonly Operator[];
}

/** @param program of the `operator` schedule: no loops, no stacks */
export function placeOperators(program: Program): PlacedCall[] {
  const kernels = new Map(program.kernels.map((kernel) => [kernel.name, kernel]));
  return program.calls.map((call, index) => {
    const kernel = defined(kernels.get(call.kernel), `kernel ${call.kernel}`);
    const symbols = new Map<Name, string>();
    kernel.params.forEach((param, at) => {
      const argument = defined(call.args[at], `argument ${param.name}`);
      assert(argument.kind === 'value', `call ${index} has a stack, so that it is looped already`);
      symbols.set(param.name, argument.value);
    });
    const operators = kernel.body.statements.map((statement): Operator => {
      assert(statement.kind !== 'loop', `call ${index} is looped already`);
      // An operator with other names is an operator of the same kind.
      return renameStatement(statement, (name) => symbols.get(name) ?? `${name}.l${index}`) as Operator;
    });
    return { kernel: kernel.name, layer: call.origin.layer, operators };
  });
}

/** Types of all symbols. */
export function inferSymbols(program: Program, calls: readonly PlacedCall[]): Map<string, Tensor> {
  const types = new Map(program.values.map(({ name, tensor }) => [name, tensor]));
  for (const operator of calls.flatMap(({ operators }) => operators)) {
    const written = definitionOf(operator.kind).infer(operator, (name) => defined(types.get(name), name));
    for (const [name, tensor] of Object.entries(written)) types.set(name, tensor);
  }
  return types;
}
