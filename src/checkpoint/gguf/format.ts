/**
 * What a GGUF file of version 3 looks like, as data and as bytes: magic, version, counts, metadata, tensor directory,
 * then the tensors at multiples of 32 bytes. All numbers little-endian.
 * Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { assert } from '../../util/assert.js';
import { blockBytes, blockElements } from '../quantize.js';

/** Formats that are written. */
export type GgufFormat = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0';

interface FormatFacts {
  /** `ggml_type` of a tensor. */
  readonly ggmlType: number;
  /** `general.file_type` of a file whose matrices are mostly of this format (`llama_ftype`). */
  readonly fileType: number;
  readonly blockElements: number;
  readonly blockBytes: number;
}

export const ggufFormats: Readonly<Record<GgufFormat, FormatFacts>> = {
  f32: { ggmlType: 0, fileType: 0, blockElements: 1, blockBytes: 4 },
  f16: { ggmlType: 1, fileType: 1, blockElements: 1, blockBytes: 2 },
  bf16: { ggmlType: 30, fileType: 32, blockElements: 1, blockBytes: 2 },
  q8_0: { ggmlType: 8, fileType: 7, blockElements, blockBytes: blockBytes.q8_0 },
  q4_0: { ggmlType: 2, fileType: 2, blockElements, blockBytes: blockBytes.q4_0 },
};

/** A metadata value; the plural kinds are arrays. */
export type GgufValue =
  | { readonly kind: 'u32' | 'f32'; readonly value: number }
  | { readonly kind: 'bool'; readonly value: boolean }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'i32s' | 'f32s'; readonly value: readonly number[] }
  | { readonly kind: 'strings'; readonly value: readonly string[] };

/** Metadata in the order of writing. */
export type GgufMetadata = readonly (readonly [key: string, value: GgufValue])[];

export interface GgufTensorInfo {
  readonly name: string;
  /** Rows first, as in a checkpoint; the file has the fastest dimension first. */
  readonly shape: readonly number[];
  readonly format: GgufFormat;
  /** From the start of the tensor data; a multiple of `alignment`. */
  readonly offset: number;
}

/** Tensors start at multiples of this many bytes. */
export const alignment = 32;

/** The next multiple of `alignment`. */
export function aligned(offset: number): number {
  return Math.ceil(offset / alignment) * alignment;
}

const valueTypes = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

/** Everything before the tensor data, padded to the alignment. */
export function encodeHeader(metadata: GgufMetadata, tensors: readonly GgufTensorInfo[]): Uint8Array {
  const bytes = new ByteWriter();
  bytes.ascii('GGUF');
  bytes.u32(3);
  bytes.u64(tensors.length);
  bytes.u64(metadata.length);
  for (const [key, value] of metadata) {
    bytes.string(key);
    encodeValue(bytes, value);
  }
  for (const { name, shape, format, offset } of tensors) {
    bytes.string(name);
    bytes.u32(shape.length);
    for (const size of [...shape].reverse()) bytes.u64(size);
    bytes.u32(ggufFormats[format].ggmlType);
    bytes.u64(offset);
  }
  return bytes.finish();
}

function encodeValue(bytes: ByteWriter, entry: GgufValue): void {
  const array = (type: number, length: number): void => {
    bytes.u32(valueTypes.array);
    bytes.u32(type);
    bytes.u64(length);
  };
  switch (entry.kind) {
    case 'u32':
      bytes.u32(valueTypes.u32);
      bytes.u32(entry.value);
      break;
    case 'f32':
      bytes.u32(valueTypes.f32);
      bytes.f32(entry.value);
      break;
    case 'bool':
      bytes.u32(valueTypes.bool);
      bytes.u8(entry.value ? 1 : 0);
      break;
    case 'string':
      bytes.u32(valueTypes.string);
      bytes.string(entry.value);
      break;
    case 'strings':
      array(valueTypes.string, entry.value.length);
      for (const text of entry.value) bytes.string(text);
      break;
    case 'i32s':
      array(valueTypes.i32, entry.value.length);
      for (const value of entry.value) bytes.i32(value);
      break;
    case 'f32s':
      array(valueTypes.f32, entry.value.length);
      for (const value of entry.value) bytes.f32(value);
      break;
    default:
      entry satisfies never;
  }
}

/** A buffer that grows by doubling. */
class ByteWriter {
  private buffer = Buffer.alloc(1 << 16);
  private length = 0;

  u8(value: number): void {
    const at = this.reserve(1);
    this.buffer.writeUInt8(value, at);
  }

  u32(value: number): void {
    const at = this.reserve(4);
    this.buffer.writeUInt32LE(value, at);
  }

  i32(value: number): void {
    const at = this.reserve(4);
    this.buffer.writeInt32LE(value, at);
  }

  f32(value: number): void {
    const at = this.reserve(4);
    this.buffer.writeFloatLE(value, at);
  }

  u64(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, `${value} is not a size`);
    const at = this.reserve(8);
    this.buffer.writeBigUInt64LE(BigInt(value), at);
  }

  ascii(text: string): void {
    const at = this.reserve(text.length);
    this.buffer.write(text, at, 'latin1');
  }

  string(text: string): void {
    const size = Buffer.byteLength(text);
    this.u64(size);
    const at = this.reserve(size);
    this.buffer.write(text, at, 'utf8');
  }

  finish(): Uint8Array {
    const at = this.reserve(aligned(this.length) - this.length);
    this.buffer.fill(0, at, this.length);
    return this.buffer.subarray(0, this.length);
  }

  /** Room for `size` more bytes; returns where they go. */
  private reserve(size: number): number {
    const at = this.length;
    this.length += size;
    if (this.length > this.buffer.length) {
      const larger = Buffer.alloc(Math.max(this.length, 2 * this.buffer.length));
      this.buffer.copy(larger, 0, 0, at);
      this.buffer = larger;
    }
    return at;
  }
}
