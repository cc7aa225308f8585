/**
 * One GGUF file, versions 2 and 3: metadata, the directory of tensors, then the tensors at multiples of the alignment.
 * The directory is checked in full before any tensor is read: types, shapes, that everything lies in the file, and that
 * nothing overlaps. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { createHash } from 'node:crypto';
import { blockOf } from '../../ir/formats.js';
import { checkedProduct, show } from '../../util/checked.js';
import { CheckpointError, UnsupportedModelError } from '../../util/errors.js';
import type { OpenFile } from '../open-file.js';
import { openForReading } from '../open-file.js';
import type { StoredDtype } from '../weights.js';
import { ggmlTypes } from './ggml-types.js';
import type { MetadataValue } from './header-reader.js';
import { HeaderReader } from './header-reader.js';

export interface GgufTensor {
  readonly name: string;
  readonly dtype: StoredDtype;
  /** Rows first. */
  readonly shape: readonly number[];
  /** Position of the first byte in the file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface GgufFile extends OpenFile {
  /** sha256 of the header bytes, hex. */
  readonly headerHash: string;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

const magic = 0x46554747;
const defaultAlignment = 32;
const maxAlignment = 1 << 20;
const maxDimensions = 4;

/**
 * Opens and checks a file. Throws CheckpointError naming the file, the key or tensor and what is wrong with it, or
 * UnsupportedModelError for a version or a tensor type that is known and not read.
 */
export function openGguf(path: string): GgufFile {
  const file = openForReading(path);
  try {
    return { ...file, ...parseHeader(file) };
  } catch (error) {
    file.close();
    throw error;
  }
}

function parseHeader(file: OpenFile): Pick<GgufFile, 'headerHash' | 'metadata' | 'tensors'> {
  const reader = new HeaderReader(file);
  if (file.size < 24 || reader.u32('the magic number') !== magic)
    throw reader.fail('is not a GGUF file, or only its beginning; download it again');
  checkVersion(reader.u32('the version'), file.path);
  // A tensor takes 24 bytes and its name, a key 13 and its text.
  const tensorCount = reader.count('the number of tensors', 24);
  const keyCount = reader.count('the number of metadata keys', 13);
  const metadata = readMetadata(reader, keyCount);
  const alignment = alignmentOf(metadata, reader);
  const entries: GgufTensor[] = [];
  for (let i = 0; i < tensorCount; i += 1) entries.push(readTensor(reader, i, file.path));
  const dataStart = Math.ceil(reader.at / alignment) * alignment;
  const tensors = placeTensors(entries, { dataStart, alignment, size: file.size }, reader);
  return { headerHash: createHash('sha256').update(reader.bytes).digest('hex'), metadata, tensors };
}

function checkVersion(version: number, path: string): void {
  if (version === 2 || version === 3) return;
  const hint = 'convert the model again with a current llama.cpp';
  if (version === 1) throw new UnsupportedModelError(`${path}: GGUF version 1 is not supported`, { hint });
  if ((version & 0xffff) === 0 && version !== 0) {
    throw new UnsupportedModelError(`${path}: big-endian GGUF files are not supported`, { hint });
  }
  throw new CheckpointError(path, `GGUF version ${version} is unknown`);
}

function readMetadata(reader: HeaderReader, count: number): Map<string, MetadataValue> {
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < count; i += 1) {
    const key = reader.string(`the name of metadata key ${i}`);
    if (metadata.has(key)) throw reader.fail(`metadata ${show(key)} is there twice`);
    metadata.set(key, reader.value(key));
  }
  return metadata;
}

function alignmentOf(metadata: ReadonlyMap<string, MetadataValue>, reader: HeaderReader): number {
  const value = metadata.get('general.alignment') ?? defaultAlignment;
  const fits = typeof value === 'number' && value >= 1 && value <= maxAlignment && Number.isInteger(Math.log2(value));
  if (!fits)
    throw reader.fail(`general.alignment is ${show(String(value))}, must be a power of two up to ${maxAlignment}`);
  return value;
}

/** An entry of the directory, its offset still relative to the data. */
function readTensor(reader: HeaderReader, index: number, path: string): GgufTensor {
  const name = reader.string(`the name of tensor ${index}`);
  const what = `tensor ${show(name)}`;
  const dimensions = reader.u32(what);
  if (dimensions < 1 || dimensions > maxDimensions) {
    throw reader.fail(`${what} has ${dimensions} dimensions, must have 1 to ${maxDimensions}`);
  }
  const sizes: bigint[] = [];
  for (let i = 0; i < dimensions; i += 1) sizes.push(reader.u64(what));
  const shape = sizes.map(Number).reverse();
  const type = reader.u32(what);
  const offset = Number(reader.u64(what));
  const dtype = formatOfType(type, what, path);
  const block = blockOf(dtype);
  const elements = shape.includes(0) ? undefined : checkedProduct(shape);
  const bytes = elements === undefined ? undefined : checkedProduct([elements / block.elements, block.bytes]);
  if (elements === undefined || bytes === undefined || shape.at(-1)! % block.elements !== 0) {
    throw reader.fail(`${what} of type ${dtype} has the impossible shape [${sizes.reverse().join(', ')}]`);
  }
  if (!Number.isSafeInteger(offset)) throw reader.fail(`${what} begins at ${offset}, beyond any file`);
  return { name, dtype, shape, offset, bytes };
}

function formatOfType(type: number, what: string, path: string): StoredDtype {
  const known = ggmlTypes.get(type);
  if (known === undefined) throw new CheckpointError(path, `${what} has the unknown type ${type}`);
  if (known.format !== undefined) return known.format;
  const names = [...ggmlTypes.values()].filter(({ format }) => format !== undefined).map(({ name }) => name);
  throw new UnsupportedModelError(`${path}: ${what} of type ${known.name} is not supported`, {
    hint: `use a file with tensors of ${names.join(', ')}`,
  });
}

interface Space {
  readonly dataStart: number;
  readonly alignment: number;
  readonly size: number;
}

/** Offsets made absolute, after checking that all tensors are in the file, apart from each other. */
function placeTensors(
  entries: readonly GgufTensor[],
  { dataStart, alignment, size }: Space,
  reader: HeaderReader,
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  for (const entry of entries) {
    const { name, bytes } = entry;
    const what = `tensor ${show(name)}`;
    if (tensors.has(name)) throw reader.fail(`${what} is there twice`);
    if (entry.offset % alignment !== 0)
      throw reader.fail(`${what} begins at ${entry.offset}, no multiple of ${alignment}`);
    const offset = dataStart + entry.offset;
    if (offset + bytes > size) {
      throw reader.fail(`${what} ends at byte ${offset + bytes}, the file has ${size}: it is truncated or broken`);
    }
    tensors.set(name, { ...entry, offset });
  }
  const ordered = [...tensors.values()].sort((a, b) => a.offset - b.offset);
  ordered.slice(1).forEach(({ name, offset }, i) => {
    const before = ordered[i]!;
    if (before.offset + before.bytes > offset) {
      throw reader.fail(`tensors ${show(before.name)} and ${show(name)} overlap`);
    }
  });
  return tensors;
}
