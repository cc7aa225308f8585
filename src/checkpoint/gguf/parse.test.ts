/** Files written field by field: what is right is read, and whatever is wrong gets one error that names it. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { bytesOf, ggufBytes, text, u32, u64, type Field, type FileParts } from '../../../tests/support/gguf-bytes.js';
import { fuzzGguf } from '../../../tests/support/gguf-fuzz.js';
import { CheckpointError, KloopError, UnsupportedModelError } from '../../util/errors.js';
import { openGguf, type GgufFile } from './parse.js';

const directory = mkdtempSync(join(tmpdir(), 'kloop-gguf-parse-'));
afterAll(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'model.gguf');

function opened(bytes: Uint8Array): GgufFile {
  writeFileSync(path, bytes);
  const file = openGguf(path);
  file.close();
  return file;
}

const open = (parts: FileParts): GgufFile => opened(ggufBytes(parts));

interface TensorFields {
  readonly name?: Field;
  readonly dimensions?: Field;
  readonly sizes?: readonly (number | bigint)[];
  readonly type?: Field;
  readonly offset?: Field;
}

/** F32 [2, 3] at the start of the data. */
function tensor({ name, dimensions, sizes = [3, 2], type, offset }: TensorFields = {}): Field[] {
  return [
    name ?? text('t'),
    dimensions ?? u32(sizes.length),
    ...sizes.map((size) => u64(size)),
    type ?? u32(0),
    offset ?? u64(0),
  ];
}

const data = new Uint8Array(64);
const [uint8, uint32, float32, bool, string, array, uint64] = [0, 4, 6, 7, 8, 9, 10].map(u32);

describe('what is there is read', () => {
  test('metadata of every kind', () => {
    const floats = Buffer.from(Float32Array.of(0.5, -2).buffer);
    const { metadata } = open({
      keys: [
        [text('a'), uint8!, Uint8Array.of(200)],
        [text('b'), uint32!, u32(0xffffffff)],
        [text('c'), float32!, floats.subarray(0, 4)],
        [text('d'), bool!, Uint8Array.of(1)],
        [text('ë'), string!, text('grün')],
        [text('f'), uint64!, u64(2n ** 53n - 1n)],
        [text('g'), uint64!, u64(2n ** 64n - 1n)],
        [text('h'), array!, string!, u64(2), text('x'), text('')],
        [text('i'), array!, float32!, u64(2), floats],
        [text('j'), u32(5), u32(0xffffffff)],
      ],
    });
    expect([...metadata]).toEqual([
      ['a', 200],
      ['b', 4294967295],
      ['c', 0.5],
      ['d', true],
      ['ë', 'grün'],
      ['f', Number.MAX_SAFE_INTEGER],
      ['g', 2n ** 64n - 1n],
      ['h', ['x', '']],
      ['i', Float32Array.of(0.5, -2)],
      ['j', -1],
    ]);
  });

  test.each([2, 3])('tensors of version %i', (version) => {
    const { tensors } = open({
      version: u32(version),
      tensors: [tensor({ offset: u64(64) }), tensor({ name: text('q'), sizes: [32], type: u32(8) })],
      data: new Uint8Array(64 + 24),
    });
    expect([...tensors.values()]).toMatchObject([
      { name: 't', dtype: 'f32', shape: [2, 3], bytes: 24 },
      { name: 'q', dtype: 'q8_0', shape: [32], bytes: 34 },
    ]);
  });

  test('another alignment', () => {
    const key = [text('general.alignment'), uint32!, u32(128)];
    const { tensors } = open({ keys: [key], tensors: [tensor()], alignment: 128, data });
    expect(tensors.get('t')!.offset).toBe(128);
  });
});

const huge = u64(2n ** 64n - 1n);
const key = (...value: Field[]): FileParts => ({ keys: [[text('k'), ...value]] });
const one = (fields: TensorFields): FileParts => ({ tensors: [tensor(fields)], data });

describe('what is wrong is named', () => {
  test.each<[string, FileParts, RegExp]>([
    ['another magic number', { magic: Buffer.from('GGML') }, /is not a GGUF file/],
    ['a version of the future', { version: u32(4) }, /version 4 is unknown/],
    ['more tensors than bytes', { tensorCount: huge }, /number of tensors is 18446744073709551615, more than/],
    ['more keys than bytes', { keyCount: u64(1000) }, /number of metadata keys is 1000, more than/],
    ['an absurd length of a key', { keys: [[huge, new Uint8Array(20)]] }, /name of metadata key 0 is 1844674\d+, more/],
    ['a key that is there twice', { keys: [0, 1].map(() => [text('k'), uint32!, u32(1)]) }, /"k" is there twice/],
    ['a key that is no text', { keys: [[u64(1), Uint8Array.of(255), uint32!, u32(1)]] }, /key 0 is not UTF-8/],
    ['an unknown type of value', key(u32(13), u64(0)), /"k" has the unknown type 13/],
    ['an absurd length of a text', key(string!, huge), /the length of metadata "k" is 1844674\d+/],
    ['an absurd length of an array', key(array!, float32!, u64(2n ** 62n)), /the length of metadata "k" is 4611686/],
    ['an array of unknown elements', key(array!, u32(77), u64(1)), /array of the unknown type 77/],
    ['an array of arrays', key(array!, array!, u64(1)), /array of arrays/],
    ['an alignment of zero', { keys: [[text('general.alignment'), uint32!, u32(0)]] }, /alignment is "0", must be/],
    ['an alignment of twelve', { keys: [[text('general.alignment'), uint32!, u32(12)]] }, /power of two/],
    ['no dimensions', one({ dimensions: u32(0) }), /has 0 dimensions, must have 1 to 4/],
    ['five dimensions', one({ sizes: [1, 1, 1, 1, 1] }), /has 5 dimensions/],
    ['an empty dimension', one({ sizes: [0, 2] }), /impossible shape \[2, 0\]/],
    ['dimensions that overflow', one({ sizes: [2n ** 32n, 2n ** 32n] }), /impossible shape \[4294967296, 4294967296\]/],
    ['a dimension that wraps', one({ sizes: [2n ** 64n - 1n] }), /impossible shape/],
    ['rows that are no whole blocks', one({ sizes: [33], type: u32(8) }), /q8_0 has the impossible shape \[33\]/],
    ['blocks across rows', one({ sizes: [16, 2], type: u32(2) }), /q4_0 has the impossible shape \[2, 16\]/],
    ['an unknown type', one({ type: u32(1000) }), /tensor "t" has the unknown type 1000/],
    ['a type that is gone', one({ type: u32(4) }), /tensor "t" has the unknown type 4/],
    ['an offset beyond the file', one({ offset: u64(64) }), /ends at byte \d+, the file has \d+/],
    ['an offset beyond all files', one({ offset: huge }), /begins at 18446744073709552000, beyond any file/],
    ['an offset between places', one({ offset: u64(8) }), /begins at 8, no multiple of 32/],
    ['tensors that overlap', { tensors: [tensor(), tensor({ name: text('u') })], data }, /"t" and "u" overlap/],
    [
      'a tensor that is there twice',
      { tensors: [tensor(), tensor({ offset: u64(32) })], data },
      /tensor "t" is there twice/,
    ],
    ['a name that would upset a terminal', one({ name: text('\u001b[2J'), type: u32(99) }), /tensor "\\u001b\[2J"/],
  ])('%s', (_, parts, message) => {
    const bytes = ggufBytes(parts);
    expect(() => opened(bytes)).toThrow(CheckpointError);
    expect(() => opened(bytes)).toThrow(message);
  });

  test.each<[string, FileParts, RegExp]>([
    ['version 1', { version: u32(1) }, /version 1 is not supported/],
    ['the other byte order', { version: u32(0x03000000) }, /big-endian/],
    ['a type that is not read', one({ type: u32(10) }), /tensor "t" of type Q2_K is not supported; use .* Q4_K/],
  ])('%s is not supported', (_, parts, message) => {
    expect(() => open(parts)).toThrow(UnsupportedModelError);
    expect(() => open(parts)).toThrow(message);
  });

  test('a file cut off anywhere', () => {
    const bytes = ggufBytes({
      keys: [
        [text('a'), string!, text('value')],
        [text('b'), array!, string!, u64(2), text('x'), text('y')],
      ],
      tensors: [tensor(), tensor({ name: text('u'), offset: u64(32) })],
      data: new Uint8Array(32 + 24),
    });
    expect(opened(bytes).tensors.size).toBe(2);
    for (let length = 0; length < bytes.length; length += 1) {
      expect(() => opened(bytes.subarray(0, length)), `${length} bytes`).toThrow(CheckpointError);
    }
  });

  test('a header without an end', () => {
    const bytes = bytesOf(Buffer.from('GGUF'), u32(3), u64(0), u64(1), text('k'), string!, u64(200 << 20));
    const size = bytes.length + (200 << 20);
    // Sparse: it takes no room on the disk.
    const sparse = join(directory, 'sparse.gguf');
    writeFileSync(sparse, bytes);
    truncateSync(sparse, size);
    expect(() => openGguf(sparse)).toThrow(/the header is longer than 134217728 bytes, at metadata "k"/);
  });

  test('no file', () => {
    expect(() => openGguf(join(directory, 'none.gguf'))).toThrow(/none.gguf: no such file/);
    expect(() => openGguf(directory)).toThrow(KloopError);
  });
});

// The long run is scripts/fuzz-gguf.mjs.
test('hundreds of broken files end in errors of ours', async () => {
  const { opened: survivors, refused } = await fuzzGguf(600, 7);
  expect(survivors).toBeGreaterThan(20);
  expect(refused).toBeGreaterThan(300);
});
