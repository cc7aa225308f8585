import { copyFileSync, mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytesOf, writeSafetensors } from '../../tests/support/safetensors.js';
import { CheckpointError } from '../util/errors.js';
import { readRowsF32 } from './read-rows.js';
import { openWeights } from './weights.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kloop-weights-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const f32 = (...values: number[]) => ({
  dtype: 'F32',
  shape: [values.length],
  data: bytesOf(Float32Array.from(values)),
});
const bits16 = (dtype: 'F16' | 'BF16', shape: number[], ...bits: number[]) => ({
  dtype,
  shape,
  data: bytesOf(Uint16Array.from(bits)),
});
function single(tensors: Parameters<typeof writeSafetensors>[1]) {
  writeSafetensors(join(dir, 'model.safetensors'), tensors);
  return openWeights(dir);
}
function index(map: unknown): void {
  writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }));
}

describe('one file', () => {
  it('reads rows in all three dtypes', () => {
    const weights = single({
      full: f32(1, -2, 3),
      half: bits16('F16', [2, 2], 0x3c00, 0xc000, 0x0001, 0x7bff),
      brain: bits16('BF16', [3], 0x3f80, 0xc000, 0x0001),
    });
    expect([...weights.names()]).toEqual(['full', 'half', 'brain']);
    expect(weights.describe('half')).toEqual({ name: 'half', dtype: 'f16', shape: [2, 2] });
    expect([...weights.readF32('full', 1, 2)]).toEqual([-2, 3]);
    expect([...weights.readF32('half', 0, 2)]).toEqual([1, -2, 2 ** -24, 65_504]);
    expect([...weights.read('half', 1, 1)]).toEqual([0x01, 0x00, 0xff, 0x7b]);
    expect([...weights.readF32('brain', 0, 3)]).toEqual([1, -2, 2 ** -133]);
    expect(weights.read('brain', 3, 0)).toHaveLength(0);
    expect(() => weights.read('brain', 2, 2)).toThrow('internal error');
    weights.close();
  });

  it('names missing tensors and dtypes that are not read', () => {
    const weights = single({ ids: { dtype: 'I64', shape: [1], data: new Uint8Array(8) } });
    expect(weights.has('ids')).toBe(true);
    expect(() => weights.describe('ids')).toThrow(/"ids" is I64, only F32, F16 and BF16/);
    expect(() => weights.describe('none"')).toThrow(/tensor "none\\"" is missing/);
    weights.close();
  });

  it('has a fingerprint that follows content, size and time, not the place', () => {
    const fingerprint = () => {
      const weights = openWeights(dir);
      weights.close();
      return weights.fingerprint;
    };
    const path = join(dir, 'model.safetensors');
    const write = (name: string) => {
      writeSafetensors(path, { [name]: f32(1) });
      utimesSync(path, 1000, 1000);
      return fingerprint();
    };
    const first = write('a');
    expect(first).toMatch(/^[0-9a-f]{64}$/);
    expect(write('b')).not.toBe(first);
    expect(write('a')).toBe(first);
    utimesSync(path, 1000, 1001);
    expect(fingerprint()).not.toBe(first);
    utimesSync(path, 1000, 1000);
    // Images that are built reproducibly give all files one time.
    writeSafetensors(path, { a: f32(2) });
    utimesSync(path, 1000, 1000);
    expect(fingerprint()).not.toBe(first);
    expect(write('a')).toBe(first);
    const moved = `${dir}-moved`;
    renameSync(dir, moved);
    dir = moved;
    expect(fingerprint()).toBe(first);
  });
});

describe('shards', () => {
  beforeEach(() => {
    writeSafetensors(join(dir, 'one.safetensors'), { a: f32(1), b: f32(2) });
    writeSafetensors(join(dir, 'two.safetensors'), { c: f32(3) });
  });

  it('are read through the index', () => {
    index({ a: 'one.safetensors', b: 'one.safetensors', c: 'two.safetensors' });
    const weights = openWeights(dir);
    expect(['a', 'b', 'c'].map((name) => weights.readF32(name, 0, 1)[0])).toEqual([1, 2, 3]);
    weights.close();
  });

  it('must be there and hold what the index says', () => {
    index({ a: 'one.safetensors', z: 'three.safetensors' });
    expect(() => openWeights(dir)).toThrow(/shard three.safetensors is missing; download/);
    index({ c: 'one.safetensors' });
    expect(() => openWeights(dir)).toThrow(/one.safetensors: lacks tensor "c"/);
  });

  it.each([
    '../one.safetensors',
    '/etc/passwd',
    'sub/one.safetensors',
    '..\\one.safetensors',
    'one.bin',
    '',
    7,
    '.safetensors',
  ])('may not be called %j', (shard) => {
    copyFileSync(join(dir, 'one.safetensors'), join(dir, '..', 'one.safetensors'));
    index({ a: shard });
    expect(() => openWeights(dir)).toThrow(/is not a plain file name/);
    rmSync(join(dir, '..', 'one.safetensors'));
  });

  it('need a well-formed index', () => {
    index([]);
    expect(() => openWeights(dir)).toThrow(/no weight_map/);
    writeFileSync(join(dir, 'model.safetensors.index.json'), '{"weight_map": {');
    expect(() => openWeights(dir)).toThrow(/index.json: is not valid JSON/);
  });
});

it('says what is missing from a directory without weights', () => {
  expect(() => openWeights(dir)).toThrow(CheckpointError);
  expect(() => openWeights(dir)).toThrow(/neither model.safetensors nor/);
});

describe('numbers that are not finite', () => {
  it.each([
    ['F32 NaN', f32(1, 2, NaN, Infinity)],
    ['F32 infinity', f32(1, 2, -Infinity)],
    ['F16 NaN', bits16('F16', [2, 2], 0x7bff, 0xfbff, 0x7c01, 0)],
    ['BF16 infinity', bits16('BF16', [2, 2], 0x7f7f, 0xff7f, 0xff80, 0)],
  ])('are refused with the tensor and the first element: %s', (_, tensor) => {
    const weights = single({ ok: f32(1, 3.4e38, -1e-45), 'bad "name"': tensor });
    const read = (name: string) => readRowsF32(weights, name, 0, weights.describe(name).shape[0]!);
    expect(() => read('ok')).not.toThrow();
    expect(() => read('bad "name"')).toThrow(/tensor "bad \\"name\\"" is not finite at element 2/);
    weights.close();
  });

  it('are counted over the whole tensor, whatever part is read', () => {
    const weights = single({ a: { dtype: 'F32', shape: [2, 2], data: bytesOf(Float32Array.of(0, 1, 2, NaN)) } });
    expect(() => readRowsF32(weights, 'a', 1, 1)).toThrow('at element 3');
    weights.close();
  });
});
