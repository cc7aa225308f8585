import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { byteLevelJson, pieceJson } from '../../tests/text/tiny-tokenizers.js';
import { byteTokenizer, tokensOf } from '../../tests/support/byte-tokenizer.js';
import { allowed, follow } from '../../tests/support/grammar.js';
import { UsageError } from '../util/errors.js';
import { philox4x32 } from '../util/prng.js';
import type { GrammarSource } from './grammar-thread.js';
import { Grammars, type GrammarLimits } from './grammar.js';
import { createTokenizer, loadTokenizer } from './tokenizer.js';

const stop = 2;
const opened: Grammars[] = [];
afterEach(() => Promise.all(opened.splice(0).map((grammars) => grammars.close())));

function grammarsWith(limits: Partial<GrammarLimits> = {}, stopTokens = [stop]): Grammars {
  const grammars = new Grammars({ tokenizer: byteTokenizer, vocab: 300, stopTokens }, limits);
  opened.push(grammars);
  return grammars;
}

const compileSchema = (grammars: Grammars, schema: object) =>
  grammars.compile({ kind: 'schema', schema: JSON.stringify(schema) });

const person = {
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer', minimum: 0, maximum: 150 } },
  required: ['name', 'age'],
  additionalProperties: false,
};

describe('a grammar of a schema', () => {
  it('allows what is valid, and the end only where the text is complete', async () => {
    const grammar = await compileSchema(grammarsWith(), person);
    const cursor = grammar.open();
    const start = await follow(cursor, '');
    expect(start).toEqual(expect.arrayContaining(tokensOf('{')));
    expect(start).not.toContain(stop);
    // Beyond the vocabulary of the tokenizer there is no token.
    expect(start.every((token) => token >= 10 && token < 266)).toBe(true);
    expect(await follow(cursor, '{"name": "Zoë", "age": 4')).not.toContain(stop);
    const after = await follow(cursor, '2}');
    expect(after).toEqual([stop]);
    cursor.close();
  });

  it('keeps two texts apart', async () => {
    const grammar = await compileSchema(grammarsWith(), person);
    const [a, b] = [grammar.open(), grammar.open()];
    await Promise.all([follow(a, '{"name": "'), follow(b, '{"na')]);
    expect(await follow(b, 'm')).toEqual(tokensOf('e'));
    expect((await follow(a, 'x')).length).toBeGreaterThan(50);
  });

  it('ends without a token where the model has none for it', async () => {
    const grammar = await compileSchema(grammarsWith({}, []), { enum: ['a'] });
    expect(await follow(grammar.open(), '"a"')).toEqual([]);
  });

  it('follows structures of texts and schemas', async () => {
    const structure = {
      format: {
        type: 'tags_with_separator',
        tags: [{ type: 'tag', begin: '<call>', content: { type: 'json_schema', json_schema: person }, end: '</call>' }],
        separator: ',',
        at_least_one: true,
        stop_after_first: true,
      },
    };
    const grammar = await grammarsWith().compile({ kind: 'structure', structure: JSON.stringify(structure) });
    expect(await follow(grammar.open(), '<call>{"name": "x", "age": 1}</call>')).toEqual([stop]);
  });
});

describe('any tokens that a grammar allows', () => {
  const demo = fileURLToPath(new URL('../../demo/tokenizer.json', import.meta.url));
  it.each([
    ['bytes in words', createTokenizer('x', byteLevelJson())],
    ['pieces and single bytes', createTokenizer('x', pieceJson())],
    ['those of the bundled model', loadTokenizer(demo)],
  ])('are text that fits: %s', async (_, tokenizer) => {
    const end = [...Array(tokenizer.vocabSize).keys()].find((id) => tokenizer.isSpecial(id))!;
    // Embeddings may have more rows than there are tokens.
    const grammars = new Grammars({ tokenizer, vocab: tokenizer.vocabSize + 37, stopTokens: [end] });
    opened.push(grammars);
    const schema = {
      type: 'object',
      properties: {
        é: { type: 'string', maxLength: 6 },
        code: { type: 'string', pattern: '^[^a]{0,3}\\S.é$' },
        list: { type: 'array', items: { enum: ['hello', 1.5, null] }, maxItems: 3 },
      },
      required: ['é', 'code', 'list'],
    };
    const grammar = await compileSchema(grammars, schema);
    for (let seed = 1; seed <= 3; seed++) {
      const cursor = grammar.open();
      const made: number[] = [];
      for (;;) {
        await cursor.ready;
        const choices = allowed(cursor);
        expect(choices.every((id) => id < tokenizer.vocabSize)).toBe(true);
        const next = choices[philox4x32([made.length, 0, 0, 0], [seed, 0])[0] % choices.length]!;
        if (next === end) break;
        expect(tokenizer.isSpecial(next)).toBe(false);
        made.push(next);
        cursor.accept(next);
      }
      const value = JSON.parse(tokenizer.decode(made)) as { é: string; code: string; list: unknown[] };
      expect(Object.keys(value)).toEqual(['é', 'code', 'list']);
      // Random bytes may be no UTF-8; then one character of the grammar becomes several.
      const characters = value.é.includes('\ufffd') ? [] : Array.from(value.é);
      expect(characters.length).toBeLessThanOrEqual(6);
      expect(value.code).toMatch(value.code.includes('\ufffd') ? /é$/ : /^[^a]{0,3}\S.é$/su);
      for (const item of value.list) expect(['hello', 1.5, null]).toContain(item);
    }
  });
});

describe('a source', () => {
  it('may be a schema as an object', async () => {
    const grammar = await grammarsWith().compile({ kind: 'schema', schema: person });
    expect(await follow(grammar.open(), '{"name": "x", "age": 1}')).toEqual([stop]);
  });

  const loop: Record<string, unknown> = {};
  loop['items'] = loop;
  it.each<[string, unknown, RegExp]>([
    ['nothing', null, /no kind; give \{ kind: 'schema', schema \}/],
    ['a text', '{}', /no kind/],
    ['another kind', { kind: 'nope' }, /the kind "nope"; give/],
    ['no schema', { kind: 'schema' }, /no schema; give it as an object or as JSON text/],
    ['a number', { kind: 'schema', schema: 5 }, /no schema/],
    ['broken JSON', { kind: 'schema', schema: '{"type":' }, /the schema is no JSON: .*JSON/],
    ['an object in a circle', { kind: 'schema', schema: loop }, /cannot be written as JSON: .*circular/],
    ['no structure', { kind: 'structure', structure: {} }, /no structure; give it as JSON text/],
    ['a broken structure', { kind: 'structure', structure: '[' }, /the structure is no JSON/],
  ])('is refused where it is %s', async (_, source, message) => {
    const compiled = grammarsWith().compile(source as GrammarSource);
    await expect(compiled).rejects.toThrow(UsageError);
    await expect(compiled).rejects.toThrow(message);
  });
});

describe('schemas that cannot be followed', () => {
  it.each([
    ['a type that is none', { type: 5 }, /Type should be a string/],
    ['a keyword that would be ignored', { type: 'array', items: { type: 'number', multipleOf: 5 } }, /multipleOf/],
    ['a reference to elsewhere', { $ref: 'http://example.org/a.json' }, /elsewhere/],
    ['a required property that is not there', { type: 'object', required: ['a'] }, /requires "a"/],
    ['a broken pattern', { type: 'string', pattern: '(' }, /no regular expression/],
    ['too many parts', { anyOf: Array(3000).fill({ type: 'string' }) }, /more than 2000/],
    ['one nested too deep', deep(100), /nested/],
    ['one too long', { enum: ['x'.repeat(70_000)] }, /characters/],
  ])('are refused: %s', async (_, schema, message) => {
    await expect(compileSchema(grammarsWith(), schema)).rejects.toThrow(message);
  });

  it('are given up where they take too long or too much memory, and harm nobody else', async () => {
    const grammars = grammarsWith({ compileMs: 400, memoryMib: 96 });
    const cursor = (await compileSchema(grammars, person)).open();
    await follow(cursor, '{"name"');
    const hostile = [
      { type: 'string', pattern: '((a{1,1000}){1,1000}){1,1000}' },
      { type: 'array', items: { type: 'string' }, minItems: 1_000_000_000, maxItems: 2_000_000_000 },
      { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } },
      { type: 'string', minLength: 50_000_000, maxLength: 100_000_000 },
    ];
    for (const schema of hostile) {
      const outcome = await compileSchema(grammars, schema).then(
        () => 'compiled',
        (error: unknown) => (error as Error).name,
      );
      expect(['compiled', 'UsageError']).toContain(outcome);
    }
    await follow(cursor, ': "x"');
  }, 20_000);
});

it('refuses more grammars at a time than there may be, and keeps those that are used again', async () => {
  const grammars = grammarsWith({ grammars: 2 });
  const [a, b] = await Promise.all([
    compileSchema(grammars, { enum: ['a'] }),
    compileSchema(grammars, { enum: ['b'] }),
  ]);
  await expect(compileSchema(grammars, { enum: ['c'] })).rejects.toThrow(/in use/);
  b.release();
  const c = await compileSchema(grammars, { enum: ['c'] });
  expect(await follow(c.open(), '"c"')).toEqual([stop]);
  expect(await follow(a.open(), '"a"')).toEqual([stop]);
});

function deep(levels: number): object {
  return levels === 0 ? { type: 'string' } : { type: 'array', items: deep(levels - 1) };
}
