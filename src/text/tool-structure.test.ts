/** What a format of calls lets an answer be, followed byte by byte. */
import { afterAll, describe, expect, it } from 'vitest';
import { byteTokenizer } from '../../tests/support/byte-tokenizer.js';
import { allowed, allowedPart } from '../../tests/support/grammar.js';
import { Grammars, type Grammar } from './grammar.js';
import { toolFormatOf, type CallRules } from './tool-formats.js';
import { ToolCallStream } from './tool-call-stream.js';
import type { Tokenizer } from './tokenizer.js';

const end = 2;
/** Token 3 is the mark of a call in Mistral's models. */
const mark = 3;
const tokenizer: Tokenizer = {
  ...byteTokenizer,
  bytesOf: (id) => (id === mark ? Buffer.from('[TOOL_CALLS]') : byteTokenizer.bytesOf(id)),
};
const grammars = new Grammars({ tokenizer, vocab: 266, stopTokens: [end] }, { grammars: 9 });
afterAll(() => grammars.close());

const schema = { type: 'object', properties: { n: { enum: [1, 2] } }, required: ['n'], additionalProperties: false };
const templates = {
  hermes: '{{ tools }}<tool_call>',
  mistral: '{{ tools }}[TOOL_CALLS]',
  llama: '{{ tools }} "parameters"',
};
type Format = keyof typeof templates;

const compiled = new Map<string, Promise<Grammar>>();
function grammarOf(format: Format, rules: CallRules): Promise<Grammar> {
  const key = JSON.stringify([format, rules]);
  const structure = toolFormatOf(templates[format])!.structure([{ name: 'f', parameters: schema }], rules);
  const source = { kind: 'structure', structure: JSON.stringify({ format: structure }), textTokens: [mark] } as const;
  const grammar = compiled.get(key) ?? grammars.compile(source);
  compiled.set(key, grammar);
  return grammar;
}

async function part(format: Format, rules: CallRules, text: string): Promise<string> {
  return allowedPart((await grammarOf(format, rules)).open(), text, end);
}

const free = { several: true, optional: true };
const once = { several: false, optional: true };
const call = {
  hermes: '<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>',
  mistral: '[TOOL_CALLS][{"name": "f", "arguments": {"n": 1}}]',
  llama: '{"name": "f", "parameters": {"n": 1}}',
};

describe('an answer that may call tools', () => {
  it.each<[Format, string[]]>([
    [
      'hermes',
      ['', 'Hi.', 'a < b <tool> {"name": 3} é\n', `See: ${call.hermes}`, `${call.hermes}\n${call.hermes} end`],
    ],
    ['mistral', ['', 'a [TOOL] b', `See: ${call.mistral}`, call.mistral.replace(/\{.*\}/, '$&, $&')]],
    [
      'llama',
      [
        ...['', ' <', 'Hi, {"name": 3}', '<b> x', '\n\nHi', call.llama, `<|python_tag|>${call.llama}`],
        ...[`See: <|python_tag|>${call.llama}`, `${call.llama}; ${call.llama}`],
      ],
    ],
  ])('is text, calls, or both: %s', async (format, texts) => {
    for (const text of texts) expect(await part(format, free, text)).toBe(text);
    // And they are read as calls.
    const stream = new ToolCallStream(toolFormatOf(templates[format])!, new Set(['f']));
    const ends = [stream.push(texts.at(-1)!), stream.end()];
    expect(ends.flatMap(({ calls }) => calls)).toEqual(Array(2).fill({ name: 'f', arguments: '{"n":1}' }));
  });

  it.each<[Format, string, string]>([
    ['hermes', 'See: <tool_call>{"name"', 'See: <tool_call>|'],
    ['hermes', call.hermes.replace('"f"', '"g"'), '<tool_call>\n{"name": "|'],
    ['hermes', call.hermes.replace('1', '3'), '<tool_call>\n{"name": "f", "arguments": {"n": |'],
    ['mistral', `See: ${call.mistral.replace('1', '3')}`, 'See: [TOOL_CALLS][{"name": "f", "arguments": {"n": |'],
    ['llama', call.llama.replace('1', '3'), '{"name": "f", "parameters": {"n": |'],
    ['llama', ' {"a": 1}', ' {"|'],
    ['llama', '<|python_tag|>print(1)', '<|python_tag|>|'],
    ['llama', 'See: <|python_tag|>print(1)', 'See: <|python_tag|>|'],
  ])('makes no call that is none of theirs: %s %j', async (format, text, expected) => {
    expect(await part(format, free, text)).toBe(expected);
  });

  it.each<Format>(['hermes', 'mistral', 'llama'])('makes one call where only one is wanted: %s', async (format) => {
    expect(await part(format, once, call[format])).toBe(call[format]);
    expect(await part(format, once, `${call[format]}; ${call[format]}`)).toBe(`${call[format]}|`);
    expect(await part(format, once, `${call[format]}${call[format]}`)).toBe(`${call[format]}|`);
    expect(await part(format, once, 'Nothing to call.')).toBe('Nothing to call.');
  });
});

it('is nothing but calls where one must be made', async () => {
  for (const format of ['hermes', 'mistral', 'llama'] as const) {
    const rules = { several: true, optional: false };
    expect(await part(format, rules, 'Hi')).toBe('|');
    expect(await part(format, rules, call[format])).toBe(call[format]);
  }
});

it('takes the special token that marks a call, and no other', async () => {
  const cursor = (await grammarOf('mistral', free)).open();
  await cursor.ready;
  expect(allowed(cursor).filter((token) => token < 10)).toEqual([end, mark]);
  cursor.accept(mark);
  await cursor.ready;
  expect(allowed(cursor)).toEqual(['['.charCodeAt(0) + 10]);
});
