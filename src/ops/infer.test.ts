import { describe, expect, it } from 'vitest';
import { infer, tensor } from '../../tests/support/operators.js';
import type { Operator, Tensor } from '../ir/program.js';
import { TypeMismatch } from './definition.js';
import { makeOperator as op } from './make.js';

const rows = tensor('i32', 'rows');
const x = tensor('f32', 'rows', 8);
const cache = tensor('bf16', 2, 2, 16, 4);

const linear = op('linear', { x: 'x', weight: 'w', bias: 'b' }, { y: 'y' });
const norm = op('rmsNorm', { x: 'x', weight: 'w' }, { y: 'y' }, {}, { eps: 1e-5, offset: 0 });
const rope = op('rope', { x: 'x', table: 't' }, { y: 'y' }, {}, { headDim: 4, pairing: 'halves' });
const attention = op(
  'attention',
  { q: 'x', keys: 'k', values: 'v', slots: 's', positions: 'p' },
  { y: 'y' },
  {},
  { heads: 2, scale: 1, softcap: 0, window: 0 },
);
const appendKv = op('appendKv', { k: 'x', v: 'x2', slots: 's', positions: 'p' }, {}, { keys: 'k', values: 'v' });
const embed = op('embed', { tokens: 't', table: 'w' }, { y: 'y' }, {}, { scale: 1 });
const add = op('add', { a: 'x', b: 'x2' }, { y: 'y' });
const gather = op('gatherRows', { x: 'x', index: 'i' }, { y: 'y' });
const allGather = op('allGather', { x: 'x' }, { y: 'y' }, {}, { sockets: 4 });

const kv = { x, k: cache, v: cache, s: rows, p: rows };

describe('types that fit', () => {
  const cases: [Operator, Record<string, Tensor>, Tensor | undefined][] = [
    [linear, { x, w: tensor('bf16', 6, 8), b: tensor('f32', 6) }, tensor('f32', 'rows', 6)],
    [norm, { x, w: tensor('f32', 4) }, x],
    [rope, { x, t: tensor('f32', 'rows', 4) }, x],
    [attention, kv, x],
    [appendKv, { ...kv, x2: x }, undefined],
    [embed, { t: rows, w: tensor('q8_0', 9, 32) }, tensor('f32', 'rows', 32)],
    [gather, { x, i: tensor('i32', 'samples') }, tensor('f32', 'samples', 8)],
    [allGather, { x }, tensor('f32', 'rows', 32)],
  ];
  it.each(cases)('$kind', (operator, types, expected) => {
    expect(infer(operator, types)).toEqual(expected === undefined ? {} : { y: expected });
  });
});

describe('types that do not fit', () => {
  const cases: [string, Operator, Record<string, Tensor>][] = [
    ['weight of another width', linear, { x, w: tensor('f32', 6, 7), b: tensor('f32', 6) }],
    ['bias of another length', linear, { x, w: tensor('f32', 6, 8), b: tensor('f32', 8) }],
    ['indices for activations', linear, { x: tensor('i32', 'rows', 8), w: tensor('f32', 6, 8), b: tensor('f32', 6) }],
    ['groups that do not divide', norm, { x, w: tensor('f32', 3) }],
    ['table of other rows', rope, { x, t: tensor('f32', 'samples', 4) }],
    ['table longer than a head', rope, { x, t: tensor('f32', 'rows', 6) }],
    ['heads that do not divide', rope, { x: tensor('f32', 'rows', 6), t: tensor('f32', 'rows', 4) }],
    [
      'cache of another head size',
      attention,
      { ...kv, k: tensor('bf16', 2, 2, 16, 8), v: tensor('bf16', 2, 2, 16, 8) },
    ],
    [
      'more cached heads than heads',
      attention,
      { ...kv, k: tensor('f32', 2, 4, 16, 4), v: tensor('f32', 2, 4, 16, 4) },
    ],
    ['keys and values of two formats', attention, { ...kv, v: tensor('f32', 2, 2, 16, 4) }],
    ['positions of samples', attention, { ...kv, p: tensor('i32', 'samples') }],
    ['cache of quantized values', appendKv, { ...kv, x2: x, k: tensor('q8_0', 2, 2, 16, 4) }],
    ['keys and values of two shapes', appendKv, { ...kv, x2: tensor('f32', 'rows', 4) }],
    ['float tokens', embed, { t: tensor('f32', 'rows'), w: tensor('f32', 9, 4) }],
    ['a table with three dimensions', embed, { t: rows, w: tensor('f32', 9, 4, 4) }],
    ['a residual of another shape', add, { x, x2: tensor('f32', 'rows', 9) }],
    ['a float index', gather, { x, i: tensor('f32', 'samples') }],
  ];
  it.each(cases)('%s', (_, operator, types) => {
    expect(() => infer(operator, types)).toThrow(TypeMismatch);
  });
});
