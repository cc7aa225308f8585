/**
 * The bytes of a GGUF header, read as far as they are asked for. Every length is compared with what the file still has
 * before anything is allocated for it, and the header as a whole has a limit, so that memory is bounded by the file.
 */
import { show } from '../../util/checked.js';
import { CheckpointError } from '../../util/errors.js';
import type { OpenFile } from '../open-file.js';

export type NumericArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** Whole numbers beyond 2^53 are bigint. Arrays of bool are arrays of bytes. */
export type MetadataValue = number | bigint | boolean | string | readonly string[] | NumericArray;

/** No published model comes near: a quarter of a million tokens and as many merges take 10 MB. */
const maxHeaderBytes = 128 << 20;
const firstChunk = 1 << 20;

/** Numbers of metadata value types: bytes of one, and an array of them from aligned bytes. */
const numeric: ReadonlyMap<number, { readonly bytes: number; readonly make: (bytes: ArrayBuffer) => NumericArray }> =
  new Map<number, { bytes: number; make: (bytes: ArrayBuffer) => NumericArray }>([
    [0, { bytes: 1, make: (bytes) => new Uint8Array(bytes) }],
    [1, { bytes: 1, make: (bytes) => new Int8Array(bytes) }],
    [2, { bytes: 2, make: (bytes) => new Uint16Array(bytes) }],
    [3, { bytes: 2, make: (bytes) => new Int16Array(bytes) }],
    [4, { bytes: 4, make: (bytes) => new Uint32Array(bytes) }],
    [5, { bytes: 4, make: (bytes) => new Int32Array(bytes) }],
    [6, { bytes: 4, make: (bytes) => new Float32Array(bytes) }],
    [7, { bytes: 1, make: (bytes) => new Uint8Array(bytes) }],
    [10, { bytes: 8, make: (bytes) => new BigUint64Array(bytes) }],
    [11, { bytes: 8, make: (bytes) => new BigInt64Array(bytes) }],
    [12, { bytes: 8, make: (bytes) => new Float64Array(bytes) }],
  ]);
const boolType = 7;
const stringType = 8;
const arrayType = 9;

export class HeaderReader {
  /** Bytes read so far. */
  at = 0;
  private buffer = Buffer.alloc(0);
  private readonly decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  constructor(private readonly file: OpenFile) {}

  /** What has been read. */
  get bytes(): Uint8Array {
    return this.buffer.subarray(0, this.at);
  }

  fail(message: string): CheckpointError {
    return new CheckpointError(this.file.path, message);
  }

  u32(what: string): number {
    const at = this.take(4, what);
    return this.buffer.readUInt32LE(at);
  }

  u64(what: string): bigint {
    const at = this.take(8, what);
    return this.buffer.readBigUInt64LE(at);
  }

  /** A count of things that take at least `unitBytes` each, which the file must still have. */
  count(what: string, unitBytes: number): number {
    const count = this.u64(what);
    const left = this.file.size - this.at;
    if (count * BigInt(unitBytes) > BigInt(left)) {
      throw this.fail(`${what} is ${count}, more than the ${left} bytes that follow can hold`);
    }
    return Number(count);
  }

  string(what: string): string {
    const size = this.count(`the length of ${what}`, 1);
    const at = this.take(size, what);
    try {
      return this.decoder.decode(this.buffer.subarray(at, at + size));
    } catch (error) {
      throw new CheckpointError(this.file.path, `${what} is not UTF-8 text`, { cause: error });
    }
  }

  /** The value of a metadata key: its type, then the value. */
  value(key: string): MetadataValue {
    const what = `metadata ${show(key)}`;
    const type = this.u32(what);
    if (type !== arrayType) return this.scalar(type, what);
    const inner = this.u32(what);
    if (inner === arrayType) throw this.fail(`${what} is an array of arrays, which is not read`);
    if (inner === stringType) {
      const length = this.count(`the length of ${what}`, 8);
      const element = `an element of ${what}`;
      const texts: string[] = [];
      for (let i = 0; i < length; i += 1) texts.push(this.string(element));
      return texts;
    }
    const numbers = numeric.get(inner);
    if (numbers === undefined) throw this.fail(`${what} is an array of the unknown type ${inner}`);
    const size = this.count(`the length of ${what}`, numbers.bytes) * numbers.bytes;
    const at = this.take(size, what);
    return numbers.make(new Uint8Array(this.buffer.subarray(at, at + size)).buffer);
  }

  private scalar(type: number, what: string): MetadataValue {
    if (type === stringType) return this.string(what);
    const numbers = numeric.get(type);
    if (numbers === undefined) throw this.fail(`${what} has the unknown type ${type}`);
    const at = this.take(numbers.bytes, what);
    const [value] = numbers.make(new Uint8Array(this.buffer.subarray(at, at + numbers.bytes)).buffer);
    if (type === boolType) return value !== 0;
    const exact = typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value;
    return exact!;
  }

  /** Moves over `size` bytes; returns where they begin in the buffer. */
  private take(size: number, what: string): number {
    const { size: total } = this.file;
    const end = this.at + size;
    if (end > total) throw this.fail(`ends at byte ${total}, inside of ${what}: it is truncated`);
    if (end > maxHeaderBytes) throw this.fail(`the header is longer than ${maxHeaderBytes} bytes, at ${what}`);
    if (end > this.buffer.length) this.load(end);
    const at = this.at;
    this.at = end;
    return at;
  }

  private load(end: number): void {
    const before = this.buffer;
    this.buffer = Buffer.alloc(Math.min(this.file.size, Math.max(end, 2 * before.length, firstChunk)));
    before.copy(this.buffer);
    this.file.readInto(this.buffer.subarray(before.length), before.length);
  }
}
