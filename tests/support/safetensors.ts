/**
 * Writes safetensors files for tests, from the text of the format and not with our own writer: well-formed ones from
 * values, and any header over any bytes.
 */
import { writeFileSync } from 'node:fs';

export interface TestTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** Length, header text and data as they are given, whether or not they make sense. */
export function rawSafetensors(header: string | object, data: Uint8Array, claimedLength?: bigint): Uint8Array {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(claimedLength ?? BigInt(text.length));
  return Buffer.concat([prefix, text, data]);
}

export function writeSafetensors(path: string, tensors: Readonly<Record<string, TestTensor>>): void {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, (end += data.length)] };
  }
  writeFileSync(path, rawSafetensors(header, Buffer.concat(Object.values(tensors).map(({ data }) => data))));
}

/** The bytes of a typed array. */
export function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
