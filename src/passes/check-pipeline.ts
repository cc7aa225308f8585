/** What must hold for the pipeline of a loop besides the order of its stages: buffers, stream, and each worker's own order. */
import type { Limits, Loop, LoopPipeline, Name, Operator, Statement, Tensor } from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import { usesOf } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import { stagesOfStatements } from './check-division.js';

/** Every carried name needs one buffer, of enough bytes, in at least one copy. */
export function wrongBuffers(
  loop: Loop,
  pipeline: LoopPipeline,
  types: ReadonlyMap<Name, Tensor>,
  limits: Limits,
): string[] {
  return loop.bindings.flatMap((binding) => {
    if (binding.kind !== 'carried') return [];
    const [buffer, ...others] = pipeline.buffers.filter(({ name }) => name === binding.name);
    const tensor = types.get(binding.name);
    if (buffer === undefined || tensor === undefined) return [`carried ${binding.name} has no buffer`];
    if (others.length > 0) return [`carried ${binding.name} has ${1 + others.length} buffers`];
    const needed = tensorBytes(tensor, limits);
    if (buffer.bytes < needed) return [`the buffer of ${binding.name} has ${buffer.bytes} of ${needed} bytes`];
    return Number.isInteger(buffer.copies) && buffer.copies >= 1 ? [] : [`${buffer.copies} copies of ${binding.name}`];
  });
}

/** What streams ahead is read in that order, first in the stage it is said to be for. */
export function wrongStream(loop: Loop, { stream }: LoopPipeline): string[] {
  const stages = loop.body.plan === undefined ? [] : stagesOfStatements(loop.body.plan);
  const first = new Map<Name, number>();
  loop.body.statements.forEach((statement, index) => {
    for (const { name } of usesOf(statement)) if (!first.has(name)) first.set(name, index);
  });
  return stream.flatMap(({ name, stage }, index) => {
    const at = first.get(name);
    if (at === undefined || stages[at] !== stage) return [`${name} streams for stage ${stage}, which does not read it`];
    const before = stream[index - 1];
    const inOrder = before === undefined || (first.get(before.name) ?? -1) <= at;
    return inOrder ? [] : [`${name} streams after ${before.name}, but is read before it`];
  });
}

/**
 * With one copy, the next value takes the place of this iteration's: whoever still reads this one must come before, in the
 * order of statements. Elementwise operators may do both at once.
 */
export function readsAfterOverwrite(loop: Loop, pipeline: LoopPipeline): string[] {
  return loop.bindings.flatMap((binding) => {
    if (binding.kind !== 'carried') return [];
    const copies = pipeline.buffers.find(({ name }) => name === binding.name)?.copies ?? 1;
    if (copies > 1) return [];
    const { statements } = loop.body;
    const writer = statements.findIndex((statement) => usesOf(statement).some(writes(binding.next)));
    const late = statements.some(
      (statement, index) =>
        usesOf(statement).some(({ name, access }) => name === binding.name && access !== 'write') &&
        (index > writer || (index === writer && !isElementwise(statement))),
    );
    return late ? [`${binding.next} takes the only place of ${binding.name} before it was last read`] : [];
  });
}

function writes(wanted: Name): (use: { name: Name; access: string }) => boolean {
  return ({ name, access }) => name === wanted && access === 'write';
}

function isElementwise(statement: Statement): statement is Operator {
  if (statement.kind === 'loop') return false;
  const { split } = definitionOf(statement.kind);
  return split.kind === 'features' && split.whole.length === 0;
}
