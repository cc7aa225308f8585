import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluate, evaluateOn, f32, i32 } from '../../tests/support/operators.js';
import { makeOperator as op } from './make.js';

const close = (values: readonly number[] | undefined, expected: readonly number[]): void => {
  expect(values).toHaveLength(expected.length);
  values!.forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 5));
};

const none = Number.NaN;

describe('operators on rows', () => {
  it('embed takes rows of the table, scaled', () => {
    const operator = op('embed', { tokens: 't', table: 'w' }, { y: 'y' }, {}, { scale: 3 });
    const table = f32([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    expect(evaluate(operator, { t: i32([2, 0, 2]), w: table })['y']).toEqual([15, 18, 3, 6, 15, 18]);
    expect(() => evaluate(operator, { t: i32([3]), w: table })).toThrow('token 3');
  });

  it('linear multiplies with the transposed weight and adds the bias', () => {
    const operands = {
      x: f32([
        [1, 2, 3],
        [-1, 0, 1],
      ]),
      w: f32([
        [1, 0, 0],
        [1, 1, 1],
      ]),
      b: f32([10, 20]),
    };
    expect(evaluate(op('linear', { x: 'x', weight: 'w' }, { y: 'y' }), operands)['y']).toEqual([1, 6, -1, 0]);
    const biased = op('linear', { x: 'x', weight: 'w', bias: 'b' }, { y: 'y' });
    expect(evaluate(biased, operands)['y']).toEqual([11, 26, 9, 20]);
  });

  it('linear accumulates in float64', () => {
    const x = f32([[1e8, 1, -1e8]]);
    const sum = evaluate(op('linear', { x: 'x', weight: 'w' }, { y: 'y' }), { x, w: f32([[1, 1, 1]]) });
    expect(sum['y']).toEqual([1]);
  });

  it('rmsNorm divides by the root of the mean square, per group', () => {
    const norm = op('rmsNorm', { x: 'x', weight: 'w' }, { y: 'y' }, {}, { eps: 0, offset: 0 });
    close(evaluate(norm, { x: f32([[3, 4]]), w: f32([1, 2]) })['y'], [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)]);
    // Two groups of one row: each has a mean square of its own.
    close(evaluate(norm, { x: f32([[3, 3, -5, 5]]), w: f32([1, 1]) })['y'], [1, 1, -1, 1]);
    const gemma = op('rmsNorm', { x: 'x', weight: 'w' }, { y: 'y' }, {}, { eps: 3, offset: 1 });
    close(evaluate(gemma, { x: f32([[1, 1]]), w: f32([0, 1]) })['y'], [0.5, 1]);
  });

  it('siluMul, geluMul, softcap and add are what their formulas say', () => {
    const pair = { a: f32([[0, 1, -2]]), b: f32([[5, 2, 3]]) };
    const both = { gate: 'a', up: 'b' };
    close(evaluate(op('siluMul', both, { y: 'y' }), pair)['y'], [0, 1.4621172, -0.7152175]);
    // gelu_pytorch_tanh(1) = 0.84119199, (-2) = -0.04540229.
    close(evaluate(op('geluMul', both, { y: 'y' }), pair)['y'], [0, 1.682384, -0.1362069]);
    close(evaluate(op('softcap', { x: 'a' }, { y: 'y' }, {}, { cap: 2 }), pair)['y'], [0, 0.9242343, -1.5231884]);
    expect(evaluate(op('add', { a: 'a', b: 'b' }, { y: 'y' }), pair)['y']).toEqual([5, 3, 1]);
  });

  it('gatherRows picks the rows of samples', () => {
    const operands = {
      x: f32([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
      index: i32([2, 0]),
    };
    expect(evaluate(op('gatherRows', { x: 'x', index: 'index' }, { y: 'y' }), operands)['y']).toEqual([5, 6, 1, 2]);
  });
});

describe('rotary embedding', () => {
  it('ropeTable holds cosines, then sines, and nothing for idle rows', () => {
    const operands = { p: i32([2, -1]), f: f32([0.5, 0.25]) };
    const table = evaluate(op('ropeTable', { positions: 'p', frequencies: 'f' }, { table: 'y' }), operands)['y'];
    close(table, [Math.cos(1), Math.cos(0.5), Math.sin(1), Math.sin(0.5), 0, 0, 0, 0]);
  });

  it('rotates the pairs that the pairing names, in every head', () => {
    const [c, s] = [Math.cos(1), Math.sin(1)];
    const operands = {
      x: f32([[1, 2, 3, 4, 5, 6, 7, 8]]),
      // A right angle for the first pair, one radian for the second.
      t: f32([[0, c, 1, s]]),
    };
    const halves = op('rope', { x: 'x', table: 't' }, { y: 'y' }, {}, { headDim: 4, pairing: 'halves' });
    close(evaluate(halves, operands)['y'], [-3, 2 * c - 4 * s, 1, 2 * s + 4 * c, -7, 6 * c - 8 * s, 5, 6 * s + 8 * c]);
    const adjacent = op('rope', { x: 'x', table: 't' }, { y: 'y' }, {}, { headDim: 4, pairing: 'adjacent' });
    close(evaluate(adjacent, operands)['y'], [
      -2,
      1,
      3 * c - 4 * s,
      3 * s + 4 * c,
      -6,
      5,
      7 * c - 8 * s,
      7 * s + 8 * c,
    ]);
  });
});

describe('state', () => {
  it('appendToken writes at slot and position, and leaves out idle rows', () => {
    const operator = op('appendToken', { tokens: 't', slots: 's', positions: 'p' }, {}, { history: 'h' });
    const history = i32([
      [0, 0, 0],
      [7, 0, 0],
    ]);
    const operands = { t: i32([4, 5, 6]), s: i32([0, 1, 1]), p: i32([2, 1, -1]), h: history };
    expect(evaluate(operator, operands)['h']).toEqual([0, 0, 4, 7, 5, 0]);
  });

  const append = op('appendKv', { k: 'k', v: 'v', slots: 's', positions: 'p' }, {}, { keys: 'keys', values: 'values' });

  it('appendKv stores every head at slot and position', () => {
    // [slots 2, heads 2, context 2, headDim 1]
    const empty = [
      [
        [[0], [0]],
        [[0], [0]],
      ],
      [
        [[0], [0]],
        [[0], [0]],
      ],
    ];
    const operands = {
      k: f32([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
      v: f32([
        [10, 20],
        [30, 40],
        [50, 60],
      ]),
      s: i32([1, 0, 0]),
      p: i32([0, 1, -1]),
      keys: f32(empty),
      values: f32(empty),
    };
    const { keys, values } = evaluate(append, operands);
    expect(keys).toEqual([0, 3, 0, 4, 1, 0, 2, 0]);
    expect(values).toEqual([0, 30, 0, 40, 10, 0, 20, 0]);
  });

  it('appendKv rounds to the format of the cache, ties to even', () => {
    const x = [[1 + 2 ** -8, 1 + 3 * 2 ** -8]];
    const operands = (dtype: 'bf16' | 'f16' | 'f32') => ({
      k: f32(x),
      v: f32([[1 + 2 ** -11, 65504]]),
      s: i32([0]),
      p: i32([0]),
      keys: f32([[[[0, 0]]]], dtype),
      values: f32([[[[0, 0]]]], dtype),
    });
    expect(evaluate(append, operands('bf16'))['keys']).toEqual([1, 1 + 2 ** -6]);
    expect(evaluate(append, operands('f16'))).toEqual({ keys: x[0], values: [1, 65504] });
    expect(evaluate(append, operands('f32'))['keys']).toEqual(x[0]);
  });
});

describe('attention', () => {
  const operator = (attributes: { heads: number; scale?: number; softcap?: number; window?: number }) =>
    op(
      'attention',
      { q: 'q', keys: 'k', values: 'v', slots: 's', positions: 'p' },
      { y: 'y' },
      {},
      { scale: 1, softcap: 0, window: 0, ...attributes },
    );

  it('weighs the values of its slot up to its own position', () => {
    // [slots 2, heads 1, context 3, headDim 1]; what must not be seen is not a number.
    const keys = f32([[[[none], [none], [none]]], [[[0], [Math.log(3)], [none]]]]);
    const values = f32([[[[none], [none], [none]]], [[[8], [4], [none]]]]);
    const operands = { q: f32([[1], [9], [1]]), k: keys, v: values, s: i32([1, 0, 1]), p: i32([1, -1, 0]) };
    // Weights 1/4 and 3/4; an idle row is zero; a first token sees itself only.
    close(evaluate(operator({ heads: 1 }), operands)['y'], [5, 0, 8]);
  });

  it('looks back as far as the window, itself included', () => {
    const operands = {
      q: f32([[0]]),
      k: f32([[[[0], [0], [0], [0]]]]),
      v: f32([[[[100], [10], [4], [2]]]]),
      s: i32([0]),
      p: i32([3]),
    };
    close(evaluate(operator({ heads: 1, window: 2 }), operands)['y'], [3]);
    close(evaluate(operator({ heads: 1, window: 9 }), operands)['y'], [29]);
  });

  it('shares key/value heads among neighbouring query heads', () => {
    // One position: the output is the value of the head that is used.
    const operands = {
      q: f32([[1, 1, 1, 1]]),
      k: f32([[[[1]], [[1]]]]),
      v: f32([[[[7]], [[9]]]]),
      s: i32([0]),
      p: i32([0]),
    };
    expect(evaluate(operator({ heads: 4 }), operands)['y']).toEqual([7, 7, 9, 9]);
  });

  it('agrees with a direct computation', () => {
    const number = fc.float({ min: -3, max: 3, noNaN: true });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(number, number, number, number, number), { minLength: 1, maxLength: 6 }),
        fc.constantFrom(0, 2.5),
        fc.constantFrom(0, 3),
        (rows, softcap, window) => {
          const position = rows.length - 1;
          const [q0, q1] = [rows[0]![0], rows[0]![4]];
          const seen = rows.slice(window > 0 ? Math.max(0, rows.length - window) : 0);
          const raw = seen.map(([, k0, k1]) => 0.5 * (q0 * k0 + q1 * k1));
          const exps = raw.map((x) => Math.exp(softcap > 0 ? softcap * Math.tanh(x / softcap) : x));
          const total = exps.reduce((a, b) => a + b);
          const expected = [3, 1].map((at) => seen.reduce((sum, row, i) => sum + (row[at]! * exps[i]!) / total, 0));
          const operands = {
            q: f32([[q0, q1]]),
            k: f32([[rows.map(([, k0, k1]) => [k0, k1])]]),
            v: f32([[rows.map(([, k0, , v]) => [v, k0])]]),
            s: i32([0]),
            p: i32([position]),
          };
          const y = evaluate(operator({ heads: 1, scale: 0.5, softcap, window }), operands)['y'];
          close(y, expected);
        },
      ),
    );
  });
});

describe('collectives', () => {
  it('allReduce adds over sockets in float64, allGather puts parts side by side', () => {
    const parts = [
      f32([
        [1e8, 1],
        [2, 3],
      ]),
      f32([
        [1, 10],
        [20, 30],
      ]),
      f32([
        [-1e8, 5],
        [6, 7],
      ]),
    ].map((x) => ({ x }));
    const reduce = op('allReduce', { x: 'x' }, { y: 'y' }, {}, { sockets: 3 });
    expect(evaluateOn(reduce, parts)).toEqual(Array(3).fill({ y: [1, 16, 28, 40] }));
    const gather = op('allGather', { x: 'x' }, { y: 'y' }, {}, { sockets: 3 });
    const whole = [1e8, 1, 1, 10, -1e8, 5, 2, 3, 20, 30, 6, 7];
    expect(evaluateOn(gather, parts)).toEqual(Array(3).fill({ y: whole }));
  });
});

describe('advance', () => {
  it('stops at limits and stop tokens, and keeps the done idle', () => {
    const writes = { next_tokens: 't', next_positions: 'p', next_remaining: 'r', next_done: 'd', emitted: 'e' };
    const reads = {
      token: 'token',
      index: 'index',
      positions: 'positions',
      remaining: 'remaining',
      done: 'done',
      stop_tokens: 'stops',
    };
    const stops = i32([3, ...Array<number>(15).fill(-1)]);
    const operands = {
      // Goes on; stops at 3; reaches its limit; was done before.
      token: i32([5, 3, 6, 7]),
      index: i32([2, 0, 1, 3]),
      positions: i32([10, 20, 30, 40]),
      remaining: i32([2, 9, 1, 4]),
      done: i32([0, 0, 0, 1]),
      stops,
    };
    expect(evaluate(op('advance', reads, writes), operands)).toEqual({
      t: [5, 3, 6, 0],
      p: [31, -1, -1, -1],
      r: [1, 8, 0, 4],
      d: [0, 1, 1, 1],
      e: [5, 3, 6, -1],
    });
  });
});
