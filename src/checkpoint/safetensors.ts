/**
 * One safetensors file: eight bytes of header length, a JSON header with dtype, shape and byte range of every tensor,
 * then the tensors without holes (https://huggingface.co/docs/safetensors). The header is checked in full before any
 * tensor is read; tensors are read on demand, by position, and never as a whole file.
 */
import { createHash } from 'node:crypto';
import { checkedProduct, show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import type { OpenFile } from './open-file.js';
import { openForReading } from './open-file.js';

/** Bits of one element, for every dtype of the format. */
const bitsOf: ReadonlyMap<unknown, number> = new Map<unknown, number>([
  ['F4', 4],
  ['F6_E2M3', 6],
  ['F6_E3M2', 6],
  ...['BOOL', 'U8', 'I8', 'F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'F8_E4M3FNUZ', 'F8_E5M2FNUZ'].map((d) => [d, 8] as const),
  ...['U16', 'I16', 'F16', 'BF16'].map((d) => [d, 16] as const),
  ...['U32', 'I32', 'F32'].map((d) => [d, 32] as const),
  ...['U64', 'I64', 'F64', 'C64'].map((d) => [d, 64] as const),
]);

const maxHeaderBytes = 100_000_000;

export interface SafetensorsEntry {
  readonly name: string;
  /** As the file spells it: `F32`, `F16`, `BF16`, ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Position of the first byte in the file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface SafetensorsFile extends OpenFile {
  /** sha256 of the header bytes, hex. */
  readonly headerHash: string;
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Opens and checks a file. Throws CheckpointError naming the file, the tensor and what is wrong with it. */
export function openSafetensors(path: string): SafetensorsFile {
  const file = openForReading(path);
  try {
    const header = readHeader(file);
    const headerHash = createHash('sha256').update(header).digest('hex');
    return { ...file, headerHash, ...parseHeader(header, path, file.size) };
  } catch (error) {
    file.close();
    throw error;
  }
}

function readHeader(file: OpenFile): Uint8Array {
  const { path, size } = file;
  const truncated = (message: string) =>
    new CheckpointError(path, message, { hint: 'the file is truncated or not safetensors: download it again' });
  if (size < 8) throw truncated(`is ${size} bytes long, too short for a header`);
  const prefix = Buffer.alloc(8);
  file.readInto(prefix, 0);
  const length = prefix.readBigUInt64LE();
  if (length > BigInt(maxHeaderBytes)) {
    throw truncated(`the header claims ${length} bytes, at most ${maxHeaderBytes} are read`);
  }
  if (8n + length > BigInt(size)) throw truncated(`the header claims ${length} bytes, the file has ${size - 8} more`);
  const header = new Uint8Array(Number(length));
  file.readInto(header, 8);
  return header;
}

function parseHeader(header: Uint8Array, path: string, size: number): Pick<SafetensorsFile, 'tensors' | 'metadata'> {
  let text: string;
  let json: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
    json = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(path, 'the header is not valid JSON', { cause: error });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new CheckpointError(path, 'the header is not a JSON object');
  }
  const duplicate = duplicateKey(text);
  if (duplicate !== undefined) throw new CheckpointError(path, `tensor ${show(duplicate)} is there twice`);
  const dataStart = 8 + header.length;
  const tensors = new Map<string, SafetensorsEntry>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') metadata = checkMetadata(value, path);
    else tensors.set(name, checkEntry(name, value, path, dataStart, size));
  }
  checkCoverage([...tensors.values()], path, dataStart, size);
  return { tensors, metadata };
}

/**
 * A key that stands twice at the top of a JSON object; JSON.parse would keep the last in silence. `text` is known to
 * be valid, so brackets and strings can be walked without further checks.
 */
function duplicateKey(text: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  let key: [number, number] = [0, 0];
  for (let i = 0; i < text.length; i += 1) {
    const char = text[i];
    if (char === '{' || char === '[') depth += 1;
    else if (char === '}' || char === ']') depth -= 1;
    else if (char === '"') {
      const start = i;
      for (i += 1; text[i] !== '"'; i += 1) if (text[i] === '\\') i += 1;
      key = [start, i + 1];
    } else if (char === ':' && depth === 1) {
      const name = JSON.parse(text.slice(...key)) as string;
      if (seen.has(name)) return name;
      seen.add(name);
    }
  }
  return undefined;
}

function checkMetadata(value: unknown, path: string): Record<string, string> {
  const isMap = typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isMap || Object.values(value).some((entry) => typeof entry !== 'string')) {
    throw new CheckpointError(path, '__metadata__ is not a map of strings');
  }
  return value as Record<string, string>;
}

function checkEntry(name: string, value: unknown, path: string, dataStart: number, size: number): SafetensorsEntry {
  const fail = (message: string) => new CheckpointError(path, `tensor ${show(name)}: ${message}`);
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  const bits = bitsOf.get(dtype);
  if (bits === undefined) throw fail(`unknown dtype ${show(dtype)}`);
  if (!isSizes(shape)) throw fail(`shape ${show(shape)} is not a list of sizes`);
  if (!isSizes(offsets) || offsets.length !== 2) throw fail(`data_offsets ${show(offsets)} are not two positions`);
  const elements = checkedProduct(shape);
  const totalBits = elements === undefined ? undefined : checkedProduct([elements, bits]);
  if (totalBits === undefined || totalBits % 8 !== 0) throw fail(`shape ${show(shape)} has no valid size in bytes`);
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw fail(`data_offsets ${show(offsets)} end before they begin`);
  if (end > size - dataStart) {
    throw fail(`its bytes end at ${end}, the file holds ${size - dataStart}: it is truncated or broken`);
  }
  const bytes = totalBits / 8;
  if (end - begin !== bytes) {
    throw fail(`shape ${show(shape)} of ${String(dtype)} takes ${bytes} bytes, data_offsets hold ${end - begin}`);
  }
  return { name, dtype: dtype as string, shape, offset: dataStart + begin, bytes };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
}

/** The format has every byte belong to exactly one tensor. */
function checkCoverage(entries: SafetensorsEntry[], path: string, dataStart: number, size: number): void {
  entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  let last = '';
  for (const { name, offset, bytes } of entries) {
    if (offset < end) throw new CheckpointError(path, `tensors ${show(last)} and ${show(name)} overlap`);
    if (offset > end) throw new CheckpointError(path, `bytes before tensor ${show(name)} belong to no tensor`);
    end = offset + bytes;
    last = name;
  }
  if (end !== size) throw new CheckpointError(path, `${size - end} bytes at the end belong to no tensor`);
}
