/** GGUF files written by hand, field by field, so that any of them can be wrong; and mutations of whole files. */
import fc from 'fast-check';

/** A number of its width, a text with its length, or bytes as they are. */
export type Field = { readonly u32: number } | { readonly u64: bigint } | { readonly text: string } | Uint8Array;

export const u32 = (value: number): Field => ({ u32: value });
export const u64 = (value: number | bigint): Field => ({ u64: BigInt(value) });
export const text = (value: string): Field => ({ text: value });

export function bytesOf(...fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.map(encode));
}

function encode(field: Field): Uint8Array {
  if (field instanceof Uint8Array) return field;
  if ('u32' in field) {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(field.u32);
    return bytes;
  }
  if ('u64' in field) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, field.u64));
    return bytes;
  }
  const encoded = Buffer.from(field.text);
  return Buffer.concat([bytesOf(u64(encoded.length)), encoded]);
}

export interface FileParts {
  readonly magic?: Field;
  readonly version?: Field;
  /** Default: as many as there are. */
  readonly tensorCount?: Field;
  readonly keyCount?: Field;
  /** Each: key, type, value. */
  readonly keys?: readonly (readonly Field[])[];
  /** Each: name, number of dimensions, dimensions (fastest first), type, offset. */
  readonly tensors?: readonly (readonly Field[])[];
  /** Multiple that the data begins at. */
  readonly alignment?: number;
  readonly data?: Uint8Array;
}

export function ggufBytes(parts: FileParts): Buffer {
  const { keys = [], tensors = [], alignment = 32, data = new Uint8Array() } = parts;
  const header = bytesOf(
    parts.magic ?? Buffer.from('GGUF'),
    parts.version ?? u32(3),
    parts.tensorCount ?? u64(tensors.length),
    parts.keyCount ?? u64(keys.length),
    ...keys.flat(),
    ...tensors.flat(),
  );
  const padding = Buffer.alloc(Math.ceil(header.length / alignment) * alignment - header.length);
  return Buffer.concat([header, padding, data]);
}

const numbers = [0n, 1n, 2n, 31n, 255n, 65_536n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];

/** A file with a few things changed: bytes, numbers, pieces left out or doubled, the end cut off. */
export function mutated(original: Uint8Array, headerBytes: number): fc.Arbitrary<Buffer> {
  const place = fc.integer({ min: 0, max: headerBytes - 1 });
  const length = fc.integer({ min: 1, max: 64 });
  const change = fc.oneof(
    fc.record({ kind: fc.constant('byte' as const), at: place, value: fc.integer({ min: 0, max: 255 }) }),
    fc.record({
      kind: fc.constant('number' as const),
      at: place,
      value: fc.oneof(fc.constantFrom(...numbers), fc.bigInt({ min: 0n, max: 300n })),
      width: fc.constantFrom(4, 8),
    }),
    fc.record({ kind: fc.constantFrom('remove' as const, 'double' as const), at: place, length }),
    fc.record({ kind: fc.constant('cut' as const), at: fc.integer({ min: 0, max: original.length }) }),
  );
  return fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
    let bytes = Buffer.from(original);
    for (const one of changes) {
      const at = Math.min(one.at, bytes.length);
      if (one.kind === 'byte' && at < bytes.length) bytes[at] = one.value;
      if (one.kind === 'number' && at + one.width <= bytes.length) {
        if (one.width === 4) bytes.writeUInt32LE(Number(BigInt.asUintN(32, one.value)), at);
        else bytes.writeBigUInt64LE(one.value, at);
      }
      if (one.kind === 'remove') bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + one.length)]);
      if (one.kind === 'double') bytes = Buffer.concat([bytes.subarray(0, at + one.length), bytes.subarray(at)]);
      if (one.kind === 'cut') bytes = bytes.subarray(0, at);
    }
    return bytes;
  });
}
