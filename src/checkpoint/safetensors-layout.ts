/** The header of a safetensors file that is to be written: tensors one after the other, in the order given. */
import { assert, defined } from '../util/assert.js';
import { checkedProduct } from '../util/checked.js';
import type { WeightDtype } from './weights.js';
import { dtypeBytes } from './weights.js';

const spelling: Readonly<Record<WeightDtype, string>> = { f32: 'F32', f16: 'F16', bf16: 'BF16' };

/** A tensor that is to be written. */
export interface PlainTensor {
  readonly name: string;
  readonly dtype: WeightDtype;
  readonly shape: readonly number[];
}

/** Bytes of a tensor's data. */
export function tensorBytes({ dtype, shape }: PlainTensor): number {
  return defined(checkedProduct([...shape, dtypeBytes(dtype)]), 'tensor size');
}

/** Length prefix and JSON, padded with spaces so that the data begins at a multiple of eight bytes. */
export function safetensorsHeader(tensors: readonly PlainTensor[]): Uint8Array {
  const entries: [string, unknown][] = [['__metadata__', { format: 'pt' }]];
  let end = 0;
  for (const tensor of tensors) {
    const begin = end;
    end += tensorBytes(tensor);
    entries.push([tensor.name, { dtype: spelling[tensor.dtype], shape: tensor.shape, data_offsets: [begin, end] }]);
  }
  assert(Number.isSafeInteger(end), 'file size');
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const header = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
  header.writeBigUInt64LE(BigInt(header.length - 8));
  json.copy(header, 8);
  return header;
}
