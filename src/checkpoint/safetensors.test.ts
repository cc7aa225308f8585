import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytesOf, rawSafetensors, writeSafetensors } from '../../tests/support/safetensors.js';
import { CheckpointError } from '../util/errors.js';
import { openSafetensors } from './safetensors.js';

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kloop-safetensors-'));
  path = join(dir, 'x.safetensors');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** The error of a file with this header over `bytes` bytes of data. */
function errorOf(header: string | object, bytes: number, claimedLength?: bigint): string {
  writeFileSync(path, rawSafetensors(header, new Uint8Array(bytes), claimedLength));
  return openError();
}
function openError(): string {
  try {
    openSafetensors(path).close();
  } catch (error) {
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toContain(path);
    expect((error as Error).message).not.toContain('\n');
    return (error as Error).message;
  }
  throw new Error('was accepted');
}
const f32 = (begin: number, end: number, shape: unknown = [(end - begin) / 4]) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
});

it('reads entries and bytes by position', () => {
  const odd = 'a"; rm -rf \'\\ \u{1F600}';
  writeSafetensors(path, {
    [odd]: { dtype: 'F32', shape: [2, 3], data: bytesOf(Float32Array.of(1, 2, 3, 4, 5, 6)) },
    empty: { dtype: 'F32', shape: [0, 5], data: new Uint8Array(0) },
    scalar: { dtype: 'I64', shape: [], data: new Uint8Array(8) },
  });
  const file = openSafetensors(path);
  expect([...file.tensors.keys()]).toEqual([odd, 'empty', 'scalar']);
  expect(file.metadata).toEqual({ format: 'pt' });
  const entry = file.tensors.get(odd)!;
  expect(entry).toMatchObject({ dtype: 'F32', shape: [2, 3], bytes: 24 });
  const row = new Float32Array(3);
  file.readInto(new Uint8Array(row.buffer), entry.offset + 12);
  expect([...row]).toEqual([4, 5, 6]);
  truncateSync(path, file.size - 20);
  expect(() => file.readInto(new Uint8Array(row.buffer), entry.offset + 12)).toThrow(CheckpointError);
  file.close();
});

describe('refuses', () => {
  it('truncated files, at every length', () => {
    writeSafetensors(path, { a: { dtype: 'F32', shape: [4], data: new Uint8Array(16) } });
    const whole = rawSafetensors({ a: f32(0, 16) }, new Uint8Array(16));
    for (let length = 0; length < whole.length; length += 1) {
      writeFileSync(path, whole.slice(0, length));
      expect(openError()).toMatch(/truncated/);
    }
  });

  it('headers that are too large, or not JSON', () => {
    expect(errorOf('{}', 0, 100_000_001n)).toContain('at most 100000000');
    expect(errorOf('{}', 0, 2n ** 64n - 1n)).toContain('claims 18446744073709551615 bytes');
    expect(errorOf('{}', 5, 8n)).toContain('the header claims 8 bytes, the file has 7 more');
    expect(errorOf('{"a":', 0)).toContain('not valid JSON');
    expect(errorOf('[]', 0)).toContain('not a JSON object');
    writeFileSync(path, rawSafetensors('', Uint8Array.of(0x22, 0xff, 0x22), 3n));
    expect(openError()).toContain('not valid JSON');
  });

  it.each([
    ['an unknown dtype', { a: { dtype: 'Q4', shape: [1], data_offsets: [0, 4] } }, 'unknown dtype "Q4"'],
    ['a dtype of another size', { a: { ...f32(0, 4), dtype: 'F16' } }, 'shape [1] of F16 takes 2 bytes'],
    ['a negative size', { a: f32(0, 4, [-1]) }, 'shape [-1] is not a list of sizes'],
    ['a fractional size', { a: f32(0, 4, [0.5]) }, 'shape [0.5]'],
    ['a shape that is no list', { a: f32(0, 4, 'x') }, 'shape "x"'],
    ['a product beyond 2^53', { a: f32(0, 4, [2 ** 31, 2 ** 31]) }, 'no valid size'],
    ['half a byte', { a: { dtype: 'F4', shape: [1], data_offsets: [0, 1] } }, 'no valid size'],
    ['an end beyond the file', { a: f32(0, 8) }, 'its bytes end at 8, the file holds 4'],
    ['a reversed range', { a: f32(4, 0, [0]) }, 'end before they begin'],
    ['three offsets', { a: { ...f32(0, 4), data_offsets: [0, 2, 4] } }, 'are not two positions'],
    ['no entry', { a: null }, 'unknown dtype undefined'],
    ['an empty tensor inside another', { a: f32(0, 0), b: f32(2, 2), c: f32(0, 4) }, 'overlap'],
    ['metadata of another kind', { __metadata__: { a: 1 } }, '__metadata__ is not a map of strings'],
    ['unused bytes', {}, '4 bytes at the end belong to no tensor'],
  ])('%s', (_, header, message) => {
    expect(errorOf(header, 4)).toContain(message);
  });

  it('overlaps, holes and duplicate names', () => {
    expect(errorOf({ a: f32(0, 8), b: f32(4, 12) }, 12)).toContain('tensors "a" and "b" overlap');
    expect(errorOf({ a: f32(0, 4), b: f32(8, 12) }, 12)).toContain('bytes before tensor "b"');
    const entry = JSON.stringify(f32(0, 4));
    // The same name, once with an escape; nested keys of equal name are no duplicates.
    expect(errorOf(`{"ab":${entry},"a\\u0062":${entry}}`, 4)).toContain('"ab" is there twice');
    expect(errorOf({ shape: f32(0, 4), dtype: f32(4, 12) }, 8)).toContain('tensor "dtype"');
  });

  it('values nested deeper than a stack', () => {
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    for (const field of ['dtype', 'shape', 'data_offsets']) {
      const header = JSON.stringify({ a: { ...f32(0, 4), [field]: '@' } }).replace('"@"', deep);
      expect(errorOf(header, 4)).toMatch(new RegExp(`tensor "a": .*${field} \\[{57}\\.{3}`));
    }
  });

  it('what is not a regular file', () => {
    expect(openError()).toContain('no such file');
    execFileSync('mkfifo', [path]);
    expect(openError()).toContain('not a regular file');
  });

  it('any header with an error of ours', () => {
    const size = fc.oneof(fc.integer({ min: -2, max: 20 }), fc.constantFrom(2 ** 53, 1e300, 0.5, '4', null));
    const entry = fc.record({
      dtype: fc.constantFrom('F32', 'BF16', 'F4', 'X'),
      shape: fc.array(size),
      data_offsets: fc.array(size),
    });
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.oneof(entry, fc.jsonValue())), fc.nat(40), (header, bytes) => {
        writeFileSync(path, rawSafetensors(header, new Uint8Array(bytes)));
        try {
          const file = openSafetensors(path);
          file.close();
          // Accepted: the entries cover the data exactly.
          expect([...file.tensors.values()].reduce((sum, tensor) => sum + tensor.bytes, 0)).toBe(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(CheckpointError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
