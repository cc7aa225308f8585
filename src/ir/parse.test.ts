import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nestedText } from '../../tests/support/nested-program.js';
import { parse, ParseError } from './parse.js';
import { print, printStatement } from './print.js';
import type { Program } from './program.js';
import { verify } from './verify.js';

describe('the text form', () => {
  it('of a program with everything is read and printed as it is', () => {
    const program = parse(nestedText);
    expect(() => verify(program)).not.toThrow();
    expect(print(program)).toBe(nestedText);
  });

  it('keeps any string and any finite number', () => {
    const base = parse(nestedText);
    const anyText = fc.string({ unit: 'binary' });
    const numbers = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { maxLength: 5 });
    fc.assert(
      fc.property(anyText, anyText, numbers, (name, tensor, data) => {
        const program: Program = {
          ...base,
          name,
          values: [
            { name: 'w', tensor: { dtype: 'q4_0', shape: [], role: 'weight' }, origin: { kind: 'checkpoint', tensor } },
            {
              name: 'c',
              tensor: { dtype: 'f32', shape: [data.length], role: 'weight' },
              origin: { kind: 'constant', data },
            },
          ],
        };
        const text = print(program);
        expect(parse(text)).toEqual(program);
        expect(text.split('\n')).toHaveLength(print({ ...base, values: program.values, name: '' }).split('\n').length);
      }),
    );
  });

  it('shows a loop on one line where only the line is wanted', () => {
    const program = parse(nestedText);
    const loop = program.kernels[2]!.body.statements[0]!;
    const inner = loop.kind === 'loop' ? loop.body.statements[3]! : loop;
    expect(printStatement(inner)).toMatch(/^for layer in 2 \(carried x = x_in then y into x_out, .*keys\[layer\].*\)$/);
  });

  it('can show programs that are not valid', () => {
    const broken = parse(nestedText.replace('h = linear(x, w_a)', 'h = linear(nothing, w_a)'));
    expect(() => verify(broken)).toThrow();
    expect(print(broken)).toContain('h = linear(nothing, w_a)');
  });

  it('has space and comments anywhere', () => {
    const loose = nestedText
      .replaceAll(/ \/\/.*/g, '')
      .replaceAll('(', ' (\n // a comment (\n ')
      .replaceAll(',', '\t,\r\n');
    expect(parse(loose)).toEqual(parse(nestedText));
  });
});

describe('text that is no program', () => {
  const cases: [string, string, RegExp][] = [
    ['program "nested', 'program nested "', /^line 1, column 9: expected a string, found nested/],
    [
      'schedule response',
      'schedule fast',
      /^line 1, column \d+: expected operator, layer, looped, response, found fast/,
    ],
    ['limits rows 4', 'limits rows four', /^line 2, column 13: expected a number, found four/],
    ['limits rows 4', 'limits rows 4.5', /^line 2, column 13: expected a whole number/],
    ['limits rows 4', 'limits rows -4', /expected a whole number, found -4/],
    ['limits rows 4', 'limits rows 99999999999999999', /expected a whole number/],
    ['[1, 0.5]', '[1, 1e999]', /1e999 is not a number that fits/],
    ['[1, 0.5]', '[1, 0.5', /expected \]/],
    ['i32[16] index', 'i32[16] idx', /expected activation, weight, state, index/],
    ['i32[16]', 'i32[cols]', /expected rows, samples, found cols/],
    ['"table; ', '"tab\\qle; ', /not a JSON string/],
    ['axis 0', 'axis 2', /axis 2 cannot be divided/],
    ['softcap(', 'softcup(', /there is no operator softcup/],
    ['softcap(', 'constructor(', /there is no operator constructor/],
    ['add(a, a)', 'add(a)', /add reads 2 names, not 1/],
    ['b = add', 'b, c = add', /add writes 1 names, not 2/],
    ['keys, values <-', 'keys, values =', /appendKv writes 0 names, not 2/],
    ['linear(x, w_a)', 'linear(x, w_a, bias: b, bias: c)', /no operand can be called bias here/],
    ['linear(x, w_a)', 'linear(x, w_a, toString: b)', /no operand can be called toString here/],
    ['; cap 2)', ')', /expected ;/],
    ['; cap 2)', '; scale 2)', /expected cap, found scale/],
    ['; cap 2)', '; cap "2")', /expected a number/],
    ['keys[layer]', 'keys[token]', /expected layer, found token/],
    ['then y into', 'else y into', /expected then/],
    ['@plan', '', /@replicated stands before @plan/],
    ['@stage attend heads', '@stage attend legs', /expected features, heads, context, single, loop/],
    ['@segment twice', '#segment twice', /unexpected "#"/],
    ['output t.1', 'output 1', /expected a name, found 1/],
  ];
  it.each(cases)('%s --> %s', (from, to, message) => {
    expect(nestedText).toContain(from);
    const read = (): unknown => parse(nestedText.replace(from, to));
    expect(read).toThrow(ParseError);
    expect(read).toThrow(message);
  });

  it('is refused wherever it is cut off', () => {
    for (let end = 0; end < nestedText.indexOf('call from_table'); end += 97) {
      if (/\n(kernel .*)?$/.test(nestedText.slice(0, end))) continue;
      expect(() => verify(parse(nestedText.slice(0, end)))).toThrow();
    }
  });

  it('cannot nest deeply', () => {
    const deep = 'for i in 2 () {'.repeat(100_000);
    const text = nestedText.replace('b = add(a, a)', deep);
    expect(() => parse(text)).toThrow(/loops are nested deeper than 16/);
  });
});
