/** One planted error per rule: a valid program in its text form, one word changed, and what verify says about it. */
import { describe, expect, it } from 'vitest';
import { nestedText } from '../../tests/support/nested-program.js';
import { parse } from './parse.js';
import type { Operator, Program } from './program.js';
import { verify, VerifyError } from './verify.js';

const program = parse(nestedText);

it('accepts the program that the errors are planted in', () => {
  expect(() => verify(program)).not.toThrow();
});

describe('values', () => {
  plant([
    ['limits rows 4', 'limits rows 0', 'rows must be a positive integer'],
    ['sockets 1', 'sockets 0', 'sockets must be a positive integer'],
    ['temporary t.1:', 'temporary t.0:', 'value t.0: the name is taken twice'],
    ['temporary t.1:', 'temporary T.1:', 'value T.1: not a name'],
    ['temporary t.1: f32[11, 8]', 'temporary t.1: f32[1073741824, 1073741824]', 'value t.1: impossible shape'],
    ['temporary t.1: f32[11, 8]', 'temporary t.1: f32[0, 8]', 'value t.1: impossible shape'],
    ['state keys.0: f32[4, 2, 16, 4] state', 'state keys.0: f32[4, 2, 16, 4] weight', 'keys.0: a state must have'],
    ['state history: i32[4, 16]', 'state history: i32[rows, 16]', 'history: a state must have a fixed shape'],
    ['f32[11, 8] weight = "table', 'f32[rows, 8] weight = "table', 'table: a weight must have a fixed shape'],
    ['w_a.1: f32[8, 8]', 'w_a.1: q8_0[8, 8]', 'rows of q8_0[8, 8] are not whole blocks of 32'],
    ['[1, 0.5]', '[1]', 'frequencies: 1 numbers for f32[2]'],
    ['rows 0 count 8', 'rows 0 count 9', 'w_a.0: 9 rows do not fit'],
    ['parts 1 replicas 1', 'parts 2 replicas 1', 'w_a.0: parts and replicas do not make 1 sockets'],
  ]);
});

describe('kernels', () => {
  plant([
    ['kernel twice (', 'kernel from_table (', 'kernel from_table: the name is taken twice'],
    ['kernel twice (', 'kernel Twice (', 'kernel Twice: not a name of a kernel'],
    ['  read a: f32', '  read A: f32', 'parameter A: not a name of a parameter'],
    ['  read a: f32', '  read b: f32', 'parameter b: the name is taken twice'],
    ['  read a: f32', '  read c: f32[2] weight,\n  read a: f32', 'parameter c: nothing does the declared read'],
    ['  write b: f32', '  write c: f32[2] weight,\n  write b: f32', 'parameter c: nothing does the declared write'],
    ['  read a: f32', '  update a: f32', 'parameter a: nothing does the declared update'],
    ['b = add(a, a)', 'a = add(a, a)', 'a is changed, and is another operand too'],
    ['b = add(a, a)', 'b = add(a, c)', 'c is read before it is written'],
    ['b = add(a, a)', 'b = add(a, a)\n a = add(b, b)', 'a is written, but is declared as read'],
    ['b = add(a, a)', 'b = add(a, a)\n b = add(a, a)', 'statement 1: b is written a second time'],
    ['b = add(a, a)', 'b = add(a, a)\n C = add(a, a)', 'statement 1: not a name: C'],
    [
      'write b: f32[11, 8]',
      'write b: f32[11, 9]',
      'declared as activation f32[11, 9], is written as activation f32[11, 8]',
    ],
    ['h = linear(x, w_a)', 'h = linear(rope, w_a)', 'statement 0.3.0: linear: weight reads 8 features, x has 4'],
    ['b = add(a, a)', 'b = add(a, a)\n@segment more', 'segments do not add up to 1'],
    ['@stage attend heads', '@stage attend heads\n@stage more heads', 'stages do not add up to 5'],
    ['0 -> 1 distance 0', '0 -> 7 distance 0', 'hand-off from stage 0 to 7 of 2'],
    ['@replicated r', '@replicated x', 'replicated x is not written here'],
  ]);
});

describe('loops', () => {
  plant([
    ['for token in 3', 'for token in 0', 'a loop of 0 iterations'],
    ['for layer in 2', 'for layer in 3', 'loop: w_a is f32[2, 8, 8], not a stack of 3'],
    ['stacked read w_a = w_a[layer],', '', 'statement 0.3.0: w_a is read before it is written'],
    ['stacked update values = values[layer]', 'stacked update keys = values[layer]', 'keys: the name is taken twice'],
    ['stacked update values = values[layer]', 'stacked update values = keys[layer]', 'keys is changed, and is another'],
    ['stacked update keys = keys[layer]', 'stacked write keys = keys[layer]', 'keys is updated, but is not a'],
    [
      'invariant update keys = keys',
      'invariant read keys = keys',
      'keys is updated, but is not a parameter that may be',
    ],
    [
      'invariant read rope = rope,',
      'invariant read rope = rope, invariant read z = rope,',
      'z: nothing does the declared',
    ],
    ['stacked write emitted = emitted[token]', 'stacked read emitted = emitted[token]', 'emitted is written, but is'],
    ['carried x = x_in then y', 'carried x = x_in then x', 'x is carried on, but the body does not write it'],
    ['carried x = x_in then y', 'carried x = x_in then a_2', 'a_2 is carried on, but the body'],
    ['then next_remaining', 'then logits', 'remaining and its next value logits have different types'],
    ['then next_remaining', 'then next_tokens', 'one value is carried on as two'],
    ['until next_done', 'until nothing', 'until nothing: the body has no such name'],
    ['until next_done', 'until logits', 'until logits is f32[samples, 11], not i32'],
    ['buffer x copies', 'buffer w_a copies', 'buffer w_a is not a carried value'],
    ['buffer x copies 2', 'buffer x copies 0', 'buffer x has 0 copies'],
    ['stream w_a stage', 'stream x stage', 'streamed x is not a stacked value'],
    ['stream w_a stage 0', 'stream w_a stage 2', 'streamed w_a is read in stage 2 of 2'],
    ['tile 64', 'tile 0', 'tiles, depth'],
  ]);
});

describe('calls', () => {
  plant([
    ['call twice(', 'call thrice(', 'call 1, kernel thrice: there is no such kernel'],
    ['call twice(t.0, t.1)', 'call twice(t.0)', 'call 1, kernel twice: 1 arguments for 2 parameters'],
    ['call twice(t.0, t.1)', 'call twice(t.0, t.2)', 'parameter b: there is no value t.2'],
    ['call twice(t.0, t.1)', 'call twice(table, t.1)', 'takes activation f32[11, 8], is given weight f32[11, 8]'],
    ['call twice(t.0, t.1)', 'call twice([t.0], t.1)', 'is given activation f32[1, 11, 8]'],
    ['[w_a.0, w_a.1]', '[]', 'parameter w_a: an empty stack'],
    ['[w_a.0, w_a.1]', '[w_a.0, table]', 'parameter w_a: a stack of values of different types'],
    ['[w_a.0, w_a.1]', '[w_a.0]', 'takes weight f32[2, 8, 8], is given weight f32[1, 8, 8]'],
    ['call from_table(table, t.0)\n', '', 'call 0, kernel twice, parameter a: t.0 is read before it is written'],
    ['call twice(t.0, t.1)', 'call twice(t.0, t.0)', 't.0 is written a second time'],
    ['temporary t.1: f32[11, 8]', 'input t.1: f32[11, 8]', 'input value t.1 may only be read'],
    ['temporary t.1: f32[11, 8] activation', 'state t.1: f32[11, 8] state', 'is given state f32[11, 8]'],
    ['[keys.0, keys.1]', '[keys.0, keys.0]', 'parameter keys: keys.0 is changed, and stands in another place'],
    ['[values.0, values.1]', '[values.0, keys.1]', 'parameter values: keys.1 is changed, and stands in another place'],
  ]);

  it('that write a state or update a temporary', () => {
    const roles = nestedText.replaceAll('f32[11, 8] activation', 'f32[11, 8] state');
    expectRefused(parse(roles.replace('temporary t.1', 'state t.1')), 'is written as');
    const keys = nestedText.replace('state keys.0: f32[4, 2, 16, 4] state', 'temporary keys.0: f32[4, 2, 16, 4] state');
    expectRefused(parse(keys), 'temporary keys.0 may be written once, not updated');
  });
});

describe('results', () => {
  plant([
    ['output t.1', 'output table', 'value table: an output that no call writes'],
    ['output t.1', 'output emitted', 'an output is listed twice'],
    ['recur last_done ->', 'recur done ->', 'value done: recurs, but no call writes it'],
    ['recur last_done -> done', 'recur last_done -> t.1', 'recurs as t.1, which is not an input'],
    ['recur last_done -> done', 'recur last_done -> tokens', 'recurs as tokens, and is not the only one'],
    ['recur last_done -> done', 'recur last_done -> stop_tokens', 'index i32[samples] recurs as index i32[16]'],
  ]);

  it('may be samples where the input is rows', () => {
    const rows = nestedText.replace('input done: i32[samples]', 'input done: i32[rows]');
    // The kernel takes samples; that is all that is wrong.
    expectRefused(parse(rows), 'takes index i32[samples], is given index i32[rows]');
  });
});

describe('operators that cannot be written as text', () => {
  const first = program.kernels[1]!;
  const withOperator = (change: object): Program => {
    const operator = { ...first.body.statements[0]!, ...change } as Operator;
    const kernel = { ...first, body: { ...first.body, statements: [operator] } };
    return { ...program, kernels: [program.kernels[0]!, kernel, program.kernels[2]!] };
  };
  it.each([
    [{ kind: 'constructor' }, 'there is no operator constructor'],
    [{ reads: {} }, 'softcap lacks operand x'],
    [{ reads: { x: 'table', z: 'table' } }, 'softcap has no operand z'],
    [{ attributes: {} }, 'softcap lacks attribute cap'],
    [{ attributes: { cap: 1, floor: 2 } }, 'softcap has no attribute floor'],
    [{ attributes: { cap: '1' } }, 'attribute cap is not a number'],
    [{ attributes: { cap: NaN } }, 'attribute cap is not a number'],
  ])('%o', (change, message) => {
    expectRefused(withOperator(change), message);
  });

  it('nor constants that are not finite', () => {
    const values = program.values.map((value) =>
      value.origin.kind === 'constant' ? { ...value, origin: { ...value.origin, data: [1, Infinity] } } : value,
    );
    expectRefused({ ...program, values }, 'frequencies: a constant that is not finite');
  });
});

/** [words, what they become, what verify says]. The changed text is still well formed. */
function plant(cases: readonly (readonly [string, string, string])[]): void {
  it.each(cases)('%s --> %s', (from, to, message) => {
    expect(nestedText).toContain(from);
    expectRefused(parse(nestedText.replace(from, to)), message);
  });
}

function expectRefused(broken: Program, message: string): void {
  const check = (): void => verify(broken);
  expect(check).toThrow(VerifyError);
  expect(check).toThrow(message);
}
