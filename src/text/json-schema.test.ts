/** What schemas allow, followed byte by byte, and which are refused. */
import { describe, expect, it } from 'vitest';
import { allowedOf } from '../../tests/support/schema-grammar.js';
import { followableSchema } from './json-schema.js';

describe('what is followed', () => {
  const numbers = ['-9007199254740991', '-11', '-10', '-4', '-3', '-1', '0', '1', '3', '4', '5', '6', '12', '1.5'];
  it.each<[object, (value: number) => boolean]>([
    [{ minimum: 5 }, (value) => value >= 5],
    [{ minimum: -10 }, (value) => value >= -10],
    [{ maximum: -3 }, (value) => value <= -3],
    [{ exclusiveMinimum: -10, exclusiveMaximum: 5 }, (value) => value > -10 && value < 5],
    [{ minimum: 0.5, maximum: 5.5 }, (value) => value > 0.5 && value < 5.5],
    [{ minimum: 3, exclusiveMinimum: 3, maximum: 9007199254740991 }, (value) => value > 3],
    [{ exclusiveMinimum: -1e300, maximum: 4 }, (value) => value <= 4],
  ])('bounds of integers: %j', async (bounds, fits) => {
    const expected = numbers.filter((text) => Number.isInteger(Number(text)) && fits(Number(text)));
    expect(await allowedOf({ type: 'integer', ...bounds }, [...numbers])).toEqual(expected);
    expect(await allowedOf({ type: ['integer', 'null'], ...bounds }, [...numbers, 'null'])).toEqual([
      ...expected,
      'null',
    ]);
  });

  it.each<[object, string[], string[]]>([
    [{ type: 'number', minimum: 0, maximum: 1 }, ['0', '0.25', '1', '1.0'], ['1.7', '-0.5', '"0"', '', '"0', '0"']],
    [{ type: 'number', minimum: 0.5, maximum: 1.5 }, ['0.5', '1.5'], ['1"5', '0 5', '1.6']],
    [{ minimum: 3 }, ['3', '40.5'], ['1', '-3']],
    [{ type: ['number', 'null', 'string'], exclusiveMaximum: 0, maxLength: 1 }, ['-1', 'null', '"a"'], ['0', '"ab"']],
    [
      { type: 'object', properties: { p: { type: 'number', minimum: 0, maximum: 1 }, q: { const: '\u0001' } } },
      ['{"p": 0.5}', '{"p": 1,"q":"\\u0001"}', '{"p":0 }'],
      ['{"p": 2}', '{"p": "0.5"}'],
    ],
    [{ type: 'array', items: { type: 'number', minimum: -1 } }, ['[-1, 0.5]', '[]'], ['[-2]']],
  ])('bounds of numbers: %j', async (schema, good, bad) => {
    expect(await allowedOf(schema, [...good, ...bad])).toEqual(good);
    const structure = { format: { type: 'json_schema', json_schema: schema } };
    expect(await allowedOf(structure, [...good, ...bad], 'structure')).toEqual(good);
  });

  it.each<[string, object, string[], string[]]>([
    ['the largest integer', { type: 'integer', minimum: 0 }, ['9007199254740991'], ['9007199254740992', '-0']],
    ['alternatives of a pattern', { type: 'string', pattern: '^yes$|no' }, ['"yes"', '"no"'], ['"yesno"', '"yes']],
    ['an empty alternative', { type: 'string', pattern: '^$|^ab?$' }, ['""', '"ab"'], ['"b"']],
    ['a day', { type: 'string', format: 'date' }, ['"2024-02-29"'], ['"2023-02-29"', '"7499-09-31"']],
    ['an address', { type: 'string', format: 'ipv4' }, ['"6.1.9.254"'], ['"06.1.9.4"']],
    ['a text without a type', { maxLength: 1 }, ['""', '"a"'], ['"ab"', '1']],
    ['a list without a type', { items: {}, maxItems: 1 }, ['[]', '[1]'], ['[1,2]', '1']],
    ['an enum and a length', { enum: ['red', 'green', 5], type: 'string', maxLength: 3 }, ['"red"'], ['"green"', '5']],
    ['an enum and a type', { enum: ['a', 1, 1.5], type: 'integer' }, ['1'], ['"a"', '1.5']],
    ['an enum and types', { enum: ['a', null, 1], type: ['string', 'null'] }, ['"a"', 'null'], ['1']],
    ['an enum and bounds', { enum: [1, 2, 3, 4], minimum: 2, exclusiveMaximum: 4 }, ['2', '3'], ['1', '4']],
    ['a const and an enum', { const: 'a', enum: ['a', 'b'], type: 'string', title: 'X' }, ['"a"'], ['"b"']],
    ['a const of no type', { const: { a: [null] } }, ['{"a":[null]}'], ['null']],
    ['what may be null, of a type', { anyOf: [{ type: 'string', nullable: true }], type: 'null' }, ['null'], ['"a"']],
    ['what may not be null', { type: 'integer', nullable: false }, ['1'], ['null']],
    [
      'a list of what may repeat',
      { items: { $ref: '#/$defs/a' }, uniqueItems: false, $defs: { a: { type: 'integer' } } },
      ['[1,1]'],
      ['["a"]'],
    ],
    [
      'several objects as one',
      {
        allOf: [{ $ref: '#/$defs/a' }, { properties: { b: { type: 'null' }, a: { type: 'integer' } } }],
        properties: { c: { $ref: '#' } },
        ...{ required: ['b'], unevaluatedProperties: false, type: 'object', title: 'X' },
        $defs: { a: { type: ['object', 'null'], properties: { a: { type: 'integer' } }, required: ['a'] } },
      },
      ['{"a":1,"b":null}', '{"a":1,"b":null,"c":{"a":2,"b":null}}'],
      ['{"a":1}', '{"b":null}', 'null', '{"a":1,"b":null,"c":{}}', '{"a":1,"b":null,"d":1}'],
    ],
    [
      'names of several patterns',
      {
        patternProperties: { '^a[a-z]*$': { type: 'integer' }, '^b': { type: 'null' }, '\\d$': { type: 'boolean' } },
        additionalProperties: false,
      },
      ['{"ab":1,"b":null,"1":true,"a":2}', '{}'],
      ['{"ab":null}', '{"c":1}', '{"b":1}', '{"1":1}'],
    ],
    [
      'names but those that fit several patterns',
      { patternProperties: { '^[a-z]{1,2}$': { type: 'integer' }, '^x[a-z]*$': { type: 'null' }, 'qq$|^-': {} } },
      ['{"a":1,"yx":1,"xyz":null,"q":1}'],
      ['{"x":1}', '{"xz":null}', '{"x":null}', '{"qq":1}', '{"xqq":null}'],
    ],
    [
      'alternatives with a title',
      { anyOf: [{ type: 'boolean' }, { type: 'null' }], default: null, title: 'X', description: 'x' },
      ['true', 'null'],
      ['1'],
    ],
    [
      'a reference with a description',
      { $ref: '#/$defs/Y', description: 'x', $defs: { Y: { type: 'string', enum: ['a'] } } },
      ['"a"'],
      ['"b"'],
    ],
    [
      'a list of itself',
      { $ref: '#/$defs/L', $defs: { L: { type: 'array', items: { anyOf: [{ $ref: '#/$defs/L' }, { const: 1 }] } } } },
      ['[]', '[1,[[],1]]'],
      ['1'],
    ],
    [
      'properties of a schema behind allOf',
      { allOf: [{ $ref: '#/definitions/P' }], definitions: { P: { properties: { 'é x': { const: 1 } } } }, title: 'P' },
      ['{"é x":1}'],
      ['1'],
    ],
    [
      'values beyond ASCII before a hexadecimal digit',
      { enum: ['España', 'größe', '\u2028b', '\u{1f600}c', { ä: 'ña' }] },
      ['"España"', '"größe"', '"\u2028b"', '"\u{1f600}c"', '{"ä":"ña"}'],
      ['"Espa\u0f1a"', '"gr\u00f6\u0dfe"'],
    ],
    [
      'names beyond ASCII before a hexadecimal digit',
      { properties: { größe: { const: 'é' } }, additionalProperties: { const: 'ñandú' } },
      ['{"größe":"é"}', '{"größe":"é","ñame":"ñandú"}'],
      ['{"größe":"é","größe":"ñandú"}'],
    ],
    [
      'values with a slash',
      { enum: ['N/A', 'a\\/b', { 'c/d': '/' }] },
      ['"N/A"', '"a\\\\/b"', '{"c/d":"/"}'],
      ['"N\\/A"', '"a\\/b"'],
    ],
  ])('%s', async (_, schema, good, bad) => {
    expect(await allowedOf(schema, [...good, ...bad])).toEqual(good);
  });

  it.each<[string, string, string[]]>([
    ['date', '2024-02-29', ['2023-02-29']],
    ['time', '20:00:16Z', ['20:60:16Z', '20:00:60Z']],
    ['date-time', '2024-02-29T23:59:59.5+01:00', ['2024-02-30T23:59:59Z']],
    ['duration', 'P1Y2M3DT4H5M6S', ['P', 'PT']],
    ['email', 'a.b@example.org', ['\\"\\x\\"@a', 'a@b']],
    ['hostname', 'example.org', ['-a']],
    ['ipv4', '6.1.9.254', ['06.1.9.4']],
    ['ipv6', '2001:db8::7334', ['::01.2.3.4', '1::2::3']],
    ['uri', 'https://example.org/a?b#c', ['a']],
    ['uri-reference', '../a', ['a b']],
    ['uri-template', '/a{/id,x}', ['{', "'"]],
    ['json-pointer', '/a~1b/0', ['/a\tb', 'a', '/~2']],
    ['relative-json-pointer', '1/a', ['1/a\tb', '/a']],
    ['uuid', 'f81d4fae-7dec-41d0-a765-00a0c91e6bf6', ['f81d4fae']],
  ])('the format %s', async (format, good, bad) => {
    const quoted = [good, ...bad].map((text) => `"${text}"`);
    expect(await allowedOf({ type: 'string', format }, quoted)).toEqual(quoted.slice(0, 1));
  });
});

describe('what is refused', () => {
  const loop = { a: { anyOf: [{ type: 'null' }, { $ref: '#/$defs/b' }] }, b: { allOf: [{ $ref: '#/$defs/a' }] } };
  it.each<[string, object, RegExp]>([
    ['bounds without a number', { items: { type: 'number', minimum: 2, maximum: 1 } }, /#\/items .* without a number/],
    ['bounds that leave nothing', { exclusiveMinimum: 1, exclusiveMaximum: 1 }, /without a number/],
    ['bounds of a number or a list', { type: ['number', 'array'], maximum: 1 }, /use anyOf/],
    ['bounds without an integer', { type: 'integer', exclusiveMinimum: 1, exclusiveMaximum: 2 }, /without an integer/],
    ['a bound that is none', { type: 'integer', minimum: 1, exclusiveMinimum: true }, /exclusiveMinimum .* no number/],
    ['keywords of two types', { minLength: 1, minimum: 1 }, /say the type/],
    ['a line feed in a pattern', { type: 'string', pattern: 'a\nb' }, /control character/],
    ['a name with a tab', { properties: { 'a\tb': {} } }, /"a\\tb", whose name/],
    ['a name with a quote', { properties: { 'a"b': {} } }, /whose name/],
    ['a name with a backslash', { properties: { 'a\\b': {} } }, /whose name/],
    ['a name with half a character', { properties: { '\ud800': {} } }, /whose name/],
    ['what is beside allOf', { allOf: [{ type: 'object' }], minProperties: 1 }, /has minProperties beside allOf/],
    [
      'two schemas of a property',
      { allOf: [{ properties: { a: { type: 'string' } } }, { properties: { a: { type: 'null' } } }] },
      /several schemas of "a"/,
    ],
    [
      'objects that have no room for each other',
      { allOf: [{ properties: { a: {} }, additionalProperties: false }, { properties: { b: {} } }] },
      /allOf with "b", for which .* no room.*; leave additionalProperties/,
    ],
    [
      'objects that have no room, of which one says so for itself',
      { allOf: [{ properties: { a: {} }, unevaluatedProperties: false }, { properties: { b: {} } }] },
      /allOf with "b"/,
    ],
    [
      'objects with others beside them',
      { allOf: [{ properties: { a: {} }, additionalProperties: {} }, { properties: { b: {} } }] },
      /properties of any name/,
    ],
    ['an object and a text', { allOf: [{ properties: { a: {} } }, { type: 'string' }] }, /what is none/],
    [
      'what no one of several objects has',
      { allOf: [{ properties: { a: {} } }, { properties: { b: {} }, required: ['c'] }] },
      /requires "c"/,
    ],
    ['what is beside anyOf', { anyOf: [{ type: 'object' }], minItems: 1 }, /has minItems beside anyOf/],
    ['a type that no choice has', { type: 'string', anyOf: [{ type: 'null' }, { const: 1 }] }, /both type and anyOf/],
    ['a type that a reference has not', { type: 'null', $ref: '#/$defs/a', $defs: { a: { enum: [1] } } }, /both type/],
    ['several of allOf', { allOf: [{ type: 'object' }, { type: 'object' }] }, /allOf with several/],
    ['texts of allOf without a type', { allOf: [{ pattern: 'a' }, { pattern: 'b' }] }, /the type 'string'/],
    ['a format without a pattern', { items: { type: 'string', format: 'nanoid' } }, /#\/items .*"nanoid".*a pattern/],
    [
      'rules for names beside properties',
      { properties: { a: {} }, propertyNames: { minLength: 2 }, additionalProperties: {} },
      /rules for names/,
    ],
    ['rules for its properties', { properties: { a: {} }, propertyNames: { minLength: 2 } }, /rules for names/],
    [
      'a property that its names leave out',
      { properties: { a: {} }, required: ['a'], propertyNames: { enum: ['b'] } },
      /requires "a"/,
    ],
    ['values that must differ', { type: 'array', items: {}, uniqueItems: true }, /the keyword "uniqueItems"/],
    ['nullable that is no boolean', { type: 'string', nullable: 'yes' }, /nullable that is no boolean/],
    ['patterns of names beside other names', { patternProperties: { a: {} }, propertyNames: {} }, /beside other names/],
    [
      'many patterns of names',
      { patternProperties: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`^a${i}$`, {}])) },
      /more than 32 patterns/,
    ],
    [
      'names of several kinds',
      { propertyNames: { anyOf: [{ enum: ['a'] }, { pattern: 'b' }] } },
      /names that are not listed/,
    ],
    ['a listed name with a quote', { propertyNames: { const: '"' }, additionalProperties: {} }, /whose name/],
    [
      'more names than parts',
      { propertyNames: { enum: Array.from({ length: 2100 }, (_, i) => `n${i}`) }, additionalProperties: {} },
      /more than 2000/,
    ],
    ['what is beside $ref', { $ref: '#/$defs/a', minLength: 1, $defs: { a: {} } }, /has minLength beside \$ref/],
    ['two that stand for a value', { oneOf: [{}], anyOf: [{}] }, /beside/],
    ['a pattern beside enum', { enum: ['a'], pattern: 'b' }, /has pattern beside enum/],
    ['an enum of which nothing fits', { enum: ['a'], type: 'integer' }, /no value that fits/],
    ['an enum that is no list', { enum: 'a' }, /enum that is no list/],
    ['a type that is none', { enum: ['a'], type: 'text' }, /type "text"/],
    ['a reference to itself', { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }, /leads back to itself/],
    ['a circle of references', { items: { $ref: '#/$defs/a' }, $defs: loop }, /leads back to itself/],
    ['a reference to nothing', { $ref: '#/$defs/a' }, /"#\/\$defs\/a", which is no schema/],
    ['a reference to what is not read', { $ref: '#/x-a', 'x-a': { not: {} } }, /which is no schema/],
    ['a reference that is escaped', { $ref: '#/$defs/a~1b', $defs: { 'a/b': {} } }, /rename/],
  ])('%s', (_, schema, message) => {
    expect(() => followableSchema(schema)).toThrow(message);
  });

  const node = (next: object) => ({ properties: { id: { type: 'integer' }, next }, required: ['id', 'next'] });
  it.each<[string, object, RegExp]>([
    ['an object in itself', node({ $ref: '#' }), /schema at # requires itself/],
    [
      'two in one another',
      { $ref: '#/$defs/a', $defs: { a: node({ $ref: '#/$defs/b' }), b: node({ $ref: '#/$defs/a' }) } },
      /\$defs\/a requires itself/,
    ],
    [
      'one that may be left out',
      { properties: { p: { $ref: '#/$defs/a' } }, $defs: { a: node({ $ref: '#/$defs/a' }) } },
      /\$defs\/a requires itself/,
    ],
    ['a list that is not empty', { type: 'array', minItems: 1, items: { $ref: '#' } }, /# requires itself/],
    ['a tuple', { type: 'array', minItems: 2, prefixItems: [{ type: 'null' }, { $ref: '#' }] }, /# requires itself/],
    [
      'properties of any name',
      { type: 'object', minProperties: 1, additionalProperties: { $ref: '#' } },
      /# requires itself/,
    ],
    ['a choice of endless ones', node({ anyOf: [{ $ref: '#' }, node({ $ref: '#' })] }), /# requires itself/],
    [
      'what its type leaves no way out of',
      node({ type: 'object', anyOf: [{ $ref: '#' }, { type: 'null' }] }),
      /# requires itself/,
    ],
  ])('what never ends: %s', (_, schema, message) => {
    expect(() => followableSchema(schema)).toThrow(message);
    expect(() => followableSchema(schema)).toThrow(/optional or null, or a list/);
  });

  it.each<[string, object]>([
    ['null', node({ anyOf: [{ $ref: '#' }, { type: 'null' }] })],
    ['a list that may be empty', node({ type: 'array', items: { $ref: '#' } })],
    ['left out', { ...node({ $ref: '#' }), required: ['id'] }],
    ['a circle that nothing leads to', { type: 'null', $defs: { a: node({ $ref: '#/$defs/a' }) } }],
  ])('but not what may end: %s', (_, schema) => {
    expect(followableSchema(schema)).toBeInstanceOf(Object);
  });

  it('allOf of what comes again and again, in time', () => {
    const twice = (i: number) => ({ allOf: [{ $ref: `#/$defs/d${i}` }, { $ref: `#/$defs/d${i}` }], properties: {} });
    const $defs = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`d${i}`, twice(i + 1)]));
    const end = { properties: { a: { type: 'null' } } };
    expect(followableSchema({ ...twice(0), $defs: { ...$defs, d50: end } })).toBeInstanceOf(Object);
  });

  it('names of a pattern that all fit another one', async () => {
    const schema = { patternProperties: { '^a[b-d]$': { type: 'null' }, '^a': { type: 'integer' } } };
    await expect(allowedOf(schema, [])).rejects.toThrow(
      /no text fits.*; names that fit "\^a\[b-d\]\$" fit other patterns/,
    );
  });

  it('does not grow with the number of references', () => {
    const chain = Object.fromEntries(
      Array.from({ length: 900 }, (_, i) => [
        `d${i}`,
        { anyOf: [{ $ref: `#/$defs/d${i + 1}` }, { $ref: `#/$defs/d${i + 1}` }] },
      ]),
    );
    expect(() => followableSchema({ $ref: '#/$defs/d0', $defs: { ...chain, d900: {} } })).toThrow(/more than 2000/);
    const short = Object.fromEntries(Object.entries(chain).slice(0, 600));
    expect(followableSchema({ $ref: '#/$defs/d0', $defs: { ...short, d600: {} } })).toBeInstanceOf(Object);
  });
});
