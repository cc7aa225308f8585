/** The forms in which matrices want what they are multiplied with, which each worker makes in its own memory. */
import { isQuantized, plainFormat } from '../../../ir/formats.js';
import type { DType, Name, Operator, Tensor } from '../../../ir/program.js';
import { concreteDim } from '../../../ir/tensor.js';
import { isKind } from '../../../ir/visit.js';
import { assert, defined } from '../../../util/assert.js';
import type { KernelEmission } from './names.js';

/** int8 with a scale for each block; bf16, which on instruction sets without products of it is the rows as they are. */
export type InputForm = 'int8' | 'bf16';

/** Offsets in each worker's own memory of the forms of names. */
export type InputForms = Readonly<Record<InputForm, ReadonlyMap<Name, number>>>;

/** What a matrix or a KV cache of this format is multiplied with; undefined: rows as they are. */
export function inputForm(format: DType): InputForm | undefined {
  if (isQuantized(format)) return 'int8';
  return plainFormat(format) === 'bf16' ? 'bf16' : undefined;
}

/** Bytes of a form (quantized_bytes in linear_quantized.h, bf16_inputs in linear.h). */
export function formBytes(form: InputForm, rows: number, width: number): number {
  return form === 'int8' ? ((rows * width) / 32) * (3 * 32 + 16) : rows * (width + (width % 2)) * 2;
}

/** Own memory for the forms of what matrices of a stage read. */
export function inputForms(
  operators: readonly Operator[],
  types: ReadonlyMap<Name, Tensor>,
  { program, own }: KernelEmission,
): InputForms {
  const forms = { int8: new Map<Name, number>(), bf16: new Map<Name, number>() };
  for (const operator of operators) {
    if (!isKind(operator, 'linear')) continue;
    const { x, weight } = operator.reads;
    const form = inputForm(defined(types.get(weight), 'type of a weight').dtype);
    if (form === undefined || forms[form].has(x)) continue;
    const [rows, width] = defined(types.get(x), x).shape;
    assert(typeof width === 'number', `the width of ${x} is not fixed`);
    forms[form].set(x, own.take(formBytes(form, concreteDim(defined(rows, 'rows'), program.limits), width)));
  }
  return forms;
}
