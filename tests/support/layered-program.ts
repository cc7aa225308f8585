/** Small programs of repeating layers for tests of the passes: what a layer does, reads and writes is up to the test. */
import { ProgramBuilder } from '../../src/models/program-builder.js';
import type { Name, Operator, Program, Recurrence, Tensor } from '../../src/ir/program.js';
import { makeOperator as op } from '../../src/ops/make.js';

export const width = 4;
export const passContext = {
  memories: [{ name: 'ram', bytes: 1 << 30 }],
  tileBytes: 1024,
  workers: 2,
  contextBlock: 4,
};

export interface LayeredOptions {
  readonly layers: number;
  /** Operators of a layer, each list one kernel; `x.0` is there before the first, a layer writes its x.(layer + 1). */
  readonly layer: (builder: ProgramBuilder, layer: number) => readonly (readonly Operator[])[];
  /** Values the host reads; the last x where absent. */
  readonly outputs?: readonly Name[];
  readonly recurrence?: readonly Recurrence[];
  /** Adds values before the first call. */
  readonly declare?: (builder: ProgramBuilder) => void;
  /** The calls after the layers. */
  readonly tail?: readonly (readonly Operator[])[];
}

/** `embed` makes x.0 = in + in; then the layers, each call with its origin; then the tail. */
export function layeredProgram(options: LayeredOptions): Program {
  const builder = new ProgramBuilder('layered', { rows: 4, samples: 4, slots: 2, context: 8 });
  builder.input('in', { dtype: 'f32', shape: ['rows', width], role: 'activation' });
  options.declare?.(builder);
  builder.call('embed', undefined, [op('add', { a: 'in', b: 'in' }, { y: 'x.0' })]);
  for (let layer = 0; layer < options.layers; layer++) {
    options.layer(builder, layer).forEach((operators, index) => builder.call(`part_${index}`, layer, operators));
  }
  options.tail?.forEach((operators) => builder.call('tail', undefined, operators));
  return builder.finish(options.outputs ?? [`x.${options.layers}`], options.recurrence ?? []);
}

export function matrix(rows: number, columns: number, dtype: Tensor['dtype'] = 'f32'): Tensor {
  return { dtype, shape: [rows, columns], role: 'weight' };
}

/** y = x . w, with a weight of its own under this name. */
export function dense(
  builder: ProgramBuilder,
  weight: Name,
  x: Name,
  y: Name,
  tensor = matrix(width, width),
): Operator {
  builder.weight(weight, tensor, weight);
  return op('linear', { x, weight }, { y });
}

/** x.(i+1) = x.i + x.i . w.i, as two kernels. */
export function residualLayer(builder: ProgramBuilder, layer: number): Operator[][] {
  const next = `x.${layer + 1}`;
  return [
    [dense(builder, `w.${layer}`, `x.${layer}`, `h.${layer}`)],
    [op('add', { a: `x.${layer}`, b: `h.${layer}` }, { y: next })],
  ];
}
