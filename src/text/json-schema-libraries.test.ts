/** Schemas as libraries write them that people describe their types with: zod, Pydantic and clients of the API. */
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { allowedOf } from '../../tests/support/schema-grammar.js';
import { followableSchema } from './json-schema.js';

const quoted = (texts: readonly string[]): string[] => texts.map((text) => JSON.stringify(text));

describe('texts of zod', () => {
  it.each<[string, z.ZodType, string[], string[]]>([
    ['date', z.iso.date(), ['2024-02-29', '1999-12-31'], ['2023-02-29', '2024-13-01']],
    ['datetime', z.iso.datetime(), ['2024-02-29T23:59:59.5Z'], ['2024-02-29T23:59:59+01:00', '2024-02-30T00:00:00Z']],
    ['datetime with offset', z.iso.datetime({ offset: true }), ['2024-02-29T23:59:59+01:00'], ['2024-02-29T23:59:59']],
    ['datetime, precise', z.iso.datetime({ precision: 3 }), ['2024-02-29T23:59:59.123Z'], ['2024-02-29T23:59:59Z']],
    ['time', z.iso.time(), ['23:59', '23:59:59.1'], ['24:00']],
    ['duration', z.iso.duration(), ['P1Y2M3DT4H5M6S', 'P3W'], ['P', 'PT', 'P1WT1H']],
    ['email', z.email(), ['first.last+tag@mail.example.org'], ['a..b@example.org', '.a@example.org', 'a@b']],
    ['email, not long', z.email().max(16), ['ab.c@example.org'], ['abc.d@example.org']],
    ['uuid', z.uuid(), ['f81d4fae-7dec-11d0-a765-00a0c91e6bf6'], ['f81d4fae-7dec-91d0-a765-00a0c91e6bf6']],
    ['uuidv4', z.uuidv4(), ['f81d4fae-7dec-41d0-a765-00a0c91e6bf6'], ['f81d4fae-7dec-11d0-a765-00a0c91e6bf6']],
    ['hostname', z.hostname(), ['www.example.org', 'localhost'], ['-a.example.org', 'a..org']],
    ['ipv4', z.ipv4(), ['6.1.9.254'], ['06.1.9.4', '1.2.3.256']],
    ['ipv6', z.ipv6(), ['2001:db8::8a2e:370:7334'], ['1::2::3']],
    ['cidrv4', z.cidrv4(), ['10.0.0.0/8'], ['10.0.0.0/33']],
    ['base64', z.base64(), ['YWI=', ''], ['YWI', 'Y=']],
    ['nanoid', z.nanoid(), ['V1StGXR8_Z5jdHi6B-myT'], ['V1StGXR8']],
    ['mac', z.mac(), ['00:1a:2b:3c:4d:5e'], ['00:1a:2b']],
    ...[60, 100, 255, 2083].map((most): [string, z.ZodType, string[], string[]] => [
      `an address of at most ${most} characters`,
      z.url().max(most),
      [
        'https://example.org/a/b?c=d#e',
        'http://www.3m.com:80//docs/a-page',
        'https://en.wikipedia.org/wiki/Kernel_(OS)',
      ],
      ['example.org', 'https://a.0x1', `https://a/${'b'.repeat(most)}`],
    ]),
    [
      'a pattern and lengths',
      z
        .string()
        .regex(/^[A-Z]\w*$/)
        .min(2)
        .max(5),
      ['Ab', 'Abcde'],
      ['A', 'Abcdef', 'ab'],
    ],
    ['several patterns', z.string().startsWith('ab').endsWith('yz'), ['abyz', 'ab--yz'], ['ab', 'yz', 'aby']],
    ['what does not come next', z.string().regex(/^(?!admin$)[a-z]+$/), ['user', 'admins'], ['admin', '']],
    [
      'what comes next',
      z.string().regex(/^(?=.*\d)(?=.*[a-z])[a-z\d]{4,}$/),
      ['abc1', '1abcd'],
      ['abcd', '1234', 'a1'],
    ],
  ])('%s', async (_, schema, good, bad) => {
    for (const text of good) expect(schema.safeParse(text).success, text).toBe(true);
    for (const text of bad) expect(schema.safeParse(text).success, text).toBe(false);
    expect(await allowedOf(z.toJSONSchema(schema), quoted([...good, ...bad]))).toEqual(quoted(good));
  });

  it('are refused where two rules leave none, or take too much', async () => {
    const none = z.toJSONSchema(z.object({ a: z.string().regex(/^a$/).min(2) }));
    await expect(allowedOf(none, [])).rejects.toThrow(/at #\/properties\/a .* no text fits.*; patterns are/);
    const large = z.toJSONSchema(z.object({ b: z.string().regex(/^(?=.*x)[^]*a[^]{200}$/) }));
    await expect(allowedOf(large, [])).rejects.toThrow(/^the schema at #\/properties\/b .* too much.*; leave one/);
  });
});

describe('objects of zod', () => {
  const colors = z.enum(['red', 'blue']);
  it.each<[string, z.ZodType, string[], string[]]>([
    ['any names', z.record(z.string(), z.int()), ['{}', '{"a":1,"b c":2}'], ['{"a":"x"}']],
    ['listed names', z.record(colors, z.int()), ['{"red":1,"blue":2}'], ['{"red":1}', '{"red":1,"blue":2,"green":3}']],
    ['some listed names', z.partialRecord(colors, z.int()), ['{}', '{"blue":2}'], ['{"green":3}', '{"red":"a"}']],
    ['names with a pattern', z.record(z.string().regex(/^k\d$/), z.int()), ['{"k1":1,"k2":2}', '{}'], ['{"a":1}']],
    [
      'names with lengths',
      z.record(z.string().min(2).max(3), z.null()),
      ['{"ab":null}'],
      ['{"a":null}', '{"abcd":null}'],
    ],
    ['names with a format', z.record(z.iso.date(), z.int()), ['{"2024-02-29":1}'], ['{"2023-02-29":1}']],
    [
      'a choice by a property',
      z.discriminatedUnion('k', [
        z.strictObject({ k: z.literal('a') }),
        z.strictObject({ k: z.literal('b'), n: z.int() }),
      ]),
      ['{"k":"a"}', '{"k":"b","n":1}'],
      ['{"k":"b"}', '{"k":"c"}'],
    ],
    ['nothing', z.object({ a: z.never().optional(), b: z.int() }), ['{"b":1}'], ['{"a":1,"b":1}', '{}']],
    [
      'nothing beside others',
      z.object({ a: z.never().optional() }).catchall(z.int()),
      ['{}', '{"b":1}'],
      ['{"a":1}', '{"b":1,"a":1}'],
    ],
    ['nothing but what is named', z.object({ a: z.int() }).catchall(z.never()), ['{"a":1}'], ['{"a":1,"b":1}']],
    ['a tuple', z.tuple([z.int(), z.null()]), ['[1,null]'], ['[1]', '[1,null,1]', '[null,1]']],
  ])('%s', async (_, schema, good, bad) => {
    for (const text of good) expect(schema.safeParse(JSON.parse(text)).success, text).toBe(true);
    for (const text of bad) expect(schema.safeParse(JSON.parse(text)).success, text).toBe(false);
    for (const target of ['draft-2020-12', 'draft-7'] as const) {
      expect(await allowedOf(z.toJSONSchema(schema, { target }), [...good, ...bad])).toEqual(good);
    }
  });

  it.each<[string, z.ZodType]>([
    ['any values', z.looseObject({ ab: z.string() })],
    ['values of a kind', z.object({ ab: z.string() }).catchall(z.int())],
    ['two objects', z.object({ ab: z.string() }).catchall(z.object({ ab: z.null().optional() }).catchall(z.int()))],
  ])('do not have a property twice beside %s', async (kind, schema) => {
    const isNested = kind === 'two objects';
    const twice = ['{"ab":"x","ab":1}', '{"ab":"x","a":1,"ab":"y"}', '{"ab":"x","\\u0061b":1}'];
    const nested = isNested ? ['{"ab":"x","a":{"ab":null,"ab":2}}'] : [];
    const value = isNested ? '{"ab":null,"abc":1}' : '1';
    const good = ['{"ab":"x"}', ...['a', 'abc', 'b', 'é'].map((name) => `{"ab":"x","${name}":${value}}`)];
    expect(await allowedOf(z.toJSONSchema(schema), [...good, ...twice, ...nested])).toEqual(good);
  });

  it('keep to both of two objects with other names each', async () => {
    const both = z.object({ a: z.looseObject({ x: z.int() }), b: z.looseObject({ y: z.int() }) }).catchall(z.null());
    const good = ['{"a":{"x":1,"y":"z"},"b":{"y":1,"x":"z"}}', '{"a":{"x":1},"b":{"y":1},"x":null}'];
    const bad = [
      '{"a":{"x":1,"x":"z"},"b":{"y":1}}',
      '{"a":{"x":1},"b":{"y":1,"y":2}}',
      '{"a":{"x":1},"b":{"y":1},"a":null}',
    ];
    expect(await allowedOf(z.toJSONSchema(both), [...good, ...bad])).toEqual(good);
  });
});

describe('schemas of clients', () => {
  const Node = z.object({
    value: z.int(),
    when: z.iso.datetime(),
    get next() {
      return Node.nullable();
    },
  });
  it('zodResponseFormat and zodFunction', async () => {
    const good =
      '{"value":1,"when":"2024-02-29T23:59:59Z","next":{"value":2,"when":"2024-01-01T00:00:00Z","next":null}}';
    const bad = good.replace('null', '{}');
    const format = zodResponseFormat(Node, 'node');
    expect(await allowedOf(format.json_schema.schema!, [good, bad])).toEqual([good]);
    const tool = zodFunction({ name: 'f', parameters: Node });
    expect(await allowedOf(tool.function.parameters!, [good, bad])).toEqual([good]);
  });

  it('optional texts that may be null, as zod-to-json-schema writes them', async () => {
    const text = { anyOf: [{ anyOf: [{ not: {} }, { type: 'string' }] }, { type: 'null' }] };
    const schema = { type: 'object', properties: { a: text, b: { not: {} } }, additionalProperties: { not: {} } };
    const good = ['{}', '{"a":"x"}', '{"a":null}'];
    expect(await allowedOf(schema, [...good, '{"a":1}', '{"b":1}', '{"c":1}'])).toEqual(good);
  });

  it('several tools, each with rules of its own', async () => {
    const tag = (name: string, parameters: z.ZodType): object => ({
      ...{ type: 'tag', begin: `${name}(`, end: ')' },
      content: { type: 'json_schema', json_schema: z.toJSONSchema(parameters) },
    });
    const tags = [tag('f', z.object({ at: z.uuidv4() })), tag('g', z.looseObject({ at: z.iso.date() }))];
    const structure = {
      format: { type: 'tags_with_separator', tags, separator: ';', at_least_one: true, stop_after_first: false },
    };
    const [uuid, date] = ['f81d4fae-7dec-41d0-a765-00a0c91e6bf6', '2024-02-29'];
    const good = [`f({"at":"${uuid}"});g({"at":"${date}","b":1})`];
    const bad = [`f({"at":"${date}"})`, `g({"at":"${uuid}"})`, `g({"at":"${date}","at":1})`];
    expect(await allowedOf(structure, [...good, ...bad], 'structure')).toEqual(good);
  });

  it.each(['a', 'b', 'c', 'd', 'e'] as const)("OpenAPI 3.0's words for what may be null: %s", async (name) => {
    const a = z.object({ x: z.int() }).meta({ id: 'A' });
    const fields = {
      ...{ a: z.enum(['x']).nullable(), b: z.string().min(2).nullable(), c: z.object({ y: z.int() }).nullable() },
      ...{ d: a.nullable(), e: z.union([z.string(), z.int()]).nullable() },
    };
    const schema = z.object({ [name]: fields[name] });
    const good = ['null', { a: '"x"', b: '"ab"', c: '{"y":1}', d: '{"x":1}', e: '1' }[name]];
    const texts = (values: string[]): string[] => values.map((value) => `{"${name}":${value}}`);
    const bad = texts(['true', '"', '{}']);
    const written = z.toJSONSchema(schema, { target: 'openapi-3.0' });
    expect(JSON.stringify(written)).toContain('"nullable":true');
    expect(await allowedOf(written, [...texts(good), ...bad])).toEqual(texts(good));
  });

  it('Pydantic', async () => {
    const $defs = {
      Cat: { properties: { kind: { const: 'cat', type: 'string' } }, required: ['kind'], type: 'object' },
      Dog: {
        properties: {
          kind: { const: 'dog', type: 'string' },
          name: { maxLength: 12, pattern: '^[A-Z]\\w*$', type: 'string' },
        },
        ...{ required: ['kind', 'name'], type: 'object' },
      },
      Color: { enum: ['red', 'blue'], title: 'Color', type: 'string' },
    };
    const mapping = { cat: '#/$defs/Cat', dog: '#/$defs/Dog' };
    const pet = {
      discriminator: { mapping, propertyName: 'kind' },
      oneOf: [{ $ref: '#/$defs/Cat' }, { $ref: '#/$defs/Dog' }],
    };
    const properties = {
      pet,
      counts: { additionalProperties: { type: 'integer' }, propertyNames: { $ref: '#/$defs/Color' }, type: 'object' },
      days: { additionalProperties: { type: 'integer' }, propertyNames: { format: 'date' }, type: 'object' },
      keys: { patternProperties: { '^k': { type: 'number' } }, type: 'object' },
      secret: { format: 'password', type: 'string', writeOnly: true },
      file: { anyOf: [{ format: 'path', maxLength: 4, type: 'string' }, { type: 'null' }] },
      url: { format: 'uri', maxLength: 2083, minLength: 1, type: 'string' },
      price: { anyOf: [{ type: 'number' }, { pattern: '^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$', type: 'string' }] },
    };
    const texts: [property: keyof typeof properties, good: string[], bad: string[]][] = [
      ['pet', ['{"kind":"cat"}', '{"kind":"dog","name":"Rex"}'], ['{"kind":"dog"}', '{"kind":"dog","name":"rex"}']],
      ['counts', ['{}', '{"red":1,"blue":2}'], ['{"green":1}', '{"red":"a"}']],
      ['days', ['{"2024-02-29":1}'], ['{"2024-02-30":1}']],
      ['keys', ['{"k":1}'], ['{"a":1}']],
      ['secret', ['"a b"', '""', '"\\n"'], ['1']],
      ['file', ['"/a/b"', 'null'], ['"/a/b/c"']],
      ['url', ['"https://example.org/"'], ['""']],
      ['price', ['1.5', '"-01.5"'], ['"-"', '"a"']],
    ];
    for (const [property, good, bad] of texts) {
      const wrapped = (values: string[]): string[] => values.map((value) => `{"p":${value}}`);
      const schema = { properties: { p: properties[property] }, required: ['p'], type: 'object', $defs };
      expect(await allowedOf(schema, wrapped([...good, ...bad])), property).toEqual(wrapped(good));
    }
    const endless = {
      $defs: { Bad: { properties: { me: { $ref: '#/$defs/Bad' } }, required: ['me'], type: 'object' } },
      $ref: '#/$defs/Bad',
    };
    expect(() => followableSchema(endless)).toThrow(/\$defs\/Bad requires itself/);
  });
});

describe('a type beside', () => {
  const $defs = {
    any: { anyOf: [{ type: 'string' }, { type: 'number' }, { $ref: '#/$defs/list' }] },
    list: { type: 'array', items: { $ref: '#/$defs/any' } },
  };
  it.each<[string, object, string[], string[]]>([
    [
      'anyOf',
      { type: 'string', anyOf: [{ type: 'null' }, { maxLength: 1 }, { const: 'abc' }] },
      ['"a"', '"abc"'],
      ['null', '"ab"'],
    ],
    ['anyOf of any value', { type: ['string', 'null'], anyOf: [{}] }, ['"a"', 'null'], ['1']],
    ['oneOf of types', { type: 'integer', oneOf: [{ type: 'number' }, { type: 'boolean' }] }, ['1'], ['1.5', 'true']],
    [
      'bounds that are left',
      { type: ['integer', 'null'], anyOf: [{ type: ['number', 'string'], minimum: 2, maxLength: 1 }] },
      ['2'],
      ['1', '2.5', '"a"', 'null'],
    ],
    ['an enum within', { type: 'integer', anyOf: [{ enum: ['a', 1, 1.5] }] }, ['1'], ['"a"', '1.5']],
    ['a reference', { type: ['array', 'integer'], $ref: '#/$defs/any' }, ['1', '[1.5,"a",[]]'], ['1.5', '"a"']],
    ['a reference that has it', { type: 'array', $ref: '#/$defs/list' }, ['[]', '["a"]'], ['1']],
    [
      'allOf',
      { type: 'object', allOf: [{ type: ['object', 'null'], properties: { a: { type: 'null' } } }] },
      ['{"a":null}'],
      ['null'],
    ],
    [
      'rules of texts in allOf',
      { type: 'string', minLength: 2, allOf: [{ pattern: '^a*$' }, { maxLength: 3 }] },
      ['"aa"', '"aaa"'],
      ['"a"', '"aaaa"', '"ab"'],
    ],
  ])('%s', async (_, schema, good, bad) => {
    expect(await allowedOf({ ...schema, $defs }, [...good, ...bad])).toEqual(good);
  });
});
