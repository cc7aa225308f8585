/**
 * Random programs made to be hard to loop: a short pattern of calls that repeats, with arbitrary reads of earlier values,
 * weights and states drawn from small pools, some calls out of line, and the host reading values in the middle.
 */
import fc from 'fast-check';
import { print } from '../src/ir/print.js';
import type { Name, Operator, Program } from '../src/ir/program.js';
import { ProgramBuilder } from '../src/models/program-builder.js';
import { makeOperator as op } from '../src/ops/make.js';

const width = 4;

interface Step {
  readonly kind: 'linear' | 'add' | 'gate' | 'remember';
  /** How many values back the operands are. */
  readonly first: number;
  readonly second: number;
  /** Weight or state: one of its own, the same for all, or one of two in turn. */
  readonly pool: 'own' | 'shared' | 'turns';
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('linear', 'linear', 'add', 'gate', 'remember'),
  first: fc.constantFrom(1, 1, 1, 2, 3),
  second: fc.integer({ min: 1, max: 4 }),
  pool: fc.constantFrom('own', 'own', 'shared', 'turns'),
});

/** Steps out of line: at call `at`, this one instead. */
const exception = fc.record({ at: fc.nat({ max: 20 }), step });

export const tangledProgram: fc.Arbitrary<Program> = fc
  .record({
    pattern: fc.array(step, { minLength: 1, maxLength: 3 }),
    times: fc.integer({ min: 1, max: 5 }),
    exceptions: fc.array(exception, { maxLength: 2 }),
    read: fc.array(fc.nat({ max: 20 }), { maxLength: 3 }),
    layered: fc.boolean(),
  })
  .map(({ pattern, times, exceptions, read, layered }) => {
    const steps = Array.from({ length: pattern.length * times }, (_, at) => {
      return exceptions.find((other) => other.at === at)?.step ?? pattern[at % pattern.length]!;
    });
    const program = build(steps, read, layered ? pattern.length : undefined);
    Object.defineProperty(program, fc.toStringMethod, { value: () => print(program) });
    return program;
  });

/** Values are v.0, v.1, ...; `layer` is how many calls make a layer. */
function build(steps: readonly Step[], read: readonly number[], layer: number | undefined): Program {
  const builder = new ProgramBuilder('tangled', { rows: 4, samples: 4, slots: 2, context: 8 });
  builder.input('in', { dtype: 'f32', shape: ['rows', width], role: 'activation' });
  for (const name of ['slots', 'positions']) builder.input(name, { dtype: 'i32', shape: ['rows'], role: 'index' });
  const declared = new Set<Name>();
  const pooled = (name: Name, at: number, { pool }: Step, declare: (name: Name) => void): Name => {
    const full = pool === 'own' ? `${name}.${at}` : pool === 'shared' ? `${name}_all` : `${name}_turn.${at % 2}`;
    if (!declared.has(full)) declare(full);
    declared.add(full);
    return full;
  };
  builder.call('start', undefined, [op('add', { a: 'in', b: 'in' }, { y: 'v.0' })]);
  steps.forEach((current, at) => {
    const back = (distance: number): Name => `v.${Math.max(0, at + 1 - distance)}`;
    const operators = operatorsOf(builder, current, at, back, pooled);
    builder.call(current.kind, layer === undefined ? undefined : Math.floor(at / layer), operators);
  });
  const outputs = new Set([`v.${steps.length}`, ...read.map((at) => `v.${Math.max(1, Math.min(at, steps.length))}`)]);
  return builder.finish([...outputs], []);
}

type Pooled = (name: Name, at: number, step: Step, declare: (name: Name) => void) => Name;

function operatorsOf(
  builder: ProgramBuilder,
  step: Step,
  at: number,
  back: (distance: number) => Name,
  pooled: Pooled,
): Operator[] {
  const [a, b, y] = [back(step.first), back(step.second), `v.${at + 1}`];
  switch (step.kind) {
    case 'linear': {
      const weight = pooled('w', at, step, (name) => {
        builder.weight(name, { dtype: 'f32', shape: [width, width], role: 'weight' }, name);
      });
      return [op('linear', { x: a, weight }, { y })];
    }
    case 'add':
      return [op('add', { a, b }, { y })];
    case 'gate':
      return [op('add', { a, b }, { y: `s.${at}` }), op('softcap', { x: `s.${at}` }, { y }, {}, { cap: 3 })];
    case 'remember': {
      const cache = (name: Name): Name =>
        pooled(name, at, step, (full) => builder.state(full, { dtype: 'f32', shape: [2, 1, 8, width], role: 'state' }));
      const [keys, values] = [cache('keys'), cache('values')];
      const where = { slots: 'slots', positions: 'positions' };
      const attributes = { heads: 1, scale: 0.5, softcap: 0, window: 0 };
      return [
        op('appendKv', { k: a, v: b, ...where }, {}, { keys, values }),
        op('attention', { q: a, keys, values, ...where }, { y }, {}, attributes),
      ];
    }
    default:
      return step.kind satisfies never;
  }
}

/** Inputs of a step for these programs: two rows, one for each slot. */
export function tangledInputs(at: number): Map<Name, Float32Array | Int32Array> {
  return new Map<Name, Float32Array | Int32Array>([
    ['in', Float32Array.from({ length: 2 * width }, (_, i) => Math.sin(i + 10 * at))],
    ['slots', Int32Array.of(0, 1)],
    ['positions', Int32Array.of(at, at)],
  ]);
}
