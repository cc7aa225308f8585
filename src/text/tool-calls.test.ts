import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { ToolCallStream } from './tool-call-stream.js';
import { toolFormatOf, type ToolCall, type ToolFormat } from './tool-formats.js';

const formatOf = (template: string): ToolFormat => {
  const format = toolFormatOf(template);
  if (format === undefined) throw new Error('no format');
  return format;
};
const hermes = formatOf('{% if tools %}<tool_call>{% endif %}');
const mistral = formatOf('{{ tools }}[TOOL_CALLS]');
const llama = formatOf('{{ tools }} {"name": function name, "parameters": dictionary} <|python_tag|>');
const names = new Set(['add', 'look_up']);

/** The text and the calls of pieces that are cut at these places. */
function read(format: ToolFormat, text: string, cuts: readonly number[] = []): { text: string; calls: ToolCall[] } {
  const stream = new ToolCallStream(format, names);
  const edges = [0, ...[...cuts].map((cut) => cut % (text.length + 1)).sort((a, b) => a - b), text.length];
  const pieces = edges.slice(1).map((edge, i) => stream.push(text.slice(edges[i], edge)));
  const all = [...pieces, stream.end()];
  return { text: all.map((piece) => piece.text).join(''), calls: all.flatMap(({ calls }) => calls) };
}

const add = { name: 'add', arguments: '{"a":1,"b":2}' };
const lookUp = { name: 'look_up', arguments: '{"word":"<tool_call>"}' };
const nothing = { name: 'add', arguments: '{}' };

const endWord = '{"word":"\\"</tool_call>\\\\","n":"</tool_call>"}';
const markWord = '{"word":"[TOOL_CALLS]add{}[TOOL_CALLS]"}';

const cases: readonly (readonly [string, ToolFormat, string, string, ToolCall[]])[] = [
  ['text alone', hermes, 'Hello <tool> there', 'Hello <tool> there', []],
  ['a call', hermes, '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>', '', [add]],
  [
    'text and two calls',
    hermes,
    'Let me see.\n<tool_call>{"name":"add","arguments":{"a":1,"b":2}}</tool_call>\n<tool_call>{"name":"add"}</tool_call>',
    'Let me see.\n\n',
    [add, nothing],
  ],
  [
    'a call in a call',
    hermes,
    '<tool_call>{"name":"look_up","arguments":{"word":"<tool_call>"}}</tool_call>',
    '',
    [lookUp],
  ],
  ['a call without its end', hermes, ' <tool_call>{"name":"add","arguments":{}}', '', [nothing]],
  ['a broken call', hermes, ' <tool_call>{"name": add}</tool_call> so', ' <tool_call>{"name": add}</tool_call> so', []],
  ['a call that is cut', hermes, '<tool_call>{"name":"add","argu', '<tool_call>{"name":"add","argu', []],
  ['another tool', hermes, '<tool_call>{"name":"rm"}</tool_call>', '<tool_call>{"name":"rm"}</tool_call>', []],
  ['arguments as text', hermes, '<tool_call>{"name":"add","arguments":"{\\"a\\":1,\\"b\\":2}"}</tool_call>', '', [add]],
  [
    'arguments that are none',
    hermes,
    '<tool_call>{"name":"add","arguments":[1]}</tool_call>',
    '<tool_call>{"name":"add","arguments":[1]}</tool_call>',
    [],
  ],
  ['a list', mistral, '[TOOL_CALLS][{"name":"add","arguments":{"a":1,"b":2}},{"name":"add"}]', '', [add, nothing]],
  [
    'a name and arguments',
    mistral,
    'Well.[TOOL_CALLS]add[ARGS]{"a":1,"b":2}[TOOL_CALLS]add{}',
    'Well.',
    [add, nothing],
  ],
  ['a broken list', mistral, '[TOOL_CALLS][{"name":"add"', '[TOOL_CALLS][{"name":"add"', []],
  ['a bare call', llama, '\n{"name": "add", "parameters": {"a": 1, "b": 2}}', '', [add]],
  ['a marked call', llama, '<|python_tag|>{"name": "add", "parameters": {}}', '', [nothing]],
  [
    'several calls',
    llama,
    '{"name":"add","parameters":{}}; {"name": "add", "parameters": {"a":1,"b":2}}',
    '',
    [nothing, add],
  ],
  [
    'numbers and texts as they are written',
    hermes,
    '<tool_call>{"name":"add","arguments":{"a": 12345678901234567890, "b" : [1.0, 1e2, "\\u00e9 \\/"]}}</tool_call>',
    '',
    [{ name: 'add', arguments: '{"a":12345678901234567890,"b":[1.0,1e2,"\\u00e9 \\/"]}' }],
  ],
  [
    'numbers as they are written, in a list, behind a name, and in a text',
    mistral,
    '[TOOL_CALLS][{"name":"add","arguments":{"a":1.0}}][TOOL_CALLS]add{"a": -0.0}[TOOL_CALLS][{"name":"add","arguments":"{\\"a\\": 1.0}"}]',
    '',
    ['{"a":1.0}', '{"a":-0.0}', '{"a":1.0}'].map((args) => ({ name: 'add', arguments: args })),
  ],
  [
    'an end mark in a string',
    hermes,
    `<tool_call>{"name":"look_up","arguments":${endWord}}</tool_call> so <tool_call>{"name":"add"}</tool_call>`,
    ' so ',
    [{ name: 'look_up', arguments: endWord }, nothing],
  ],
  [
    'an end mark in a string, and no end',
    hermes,
    `<tool_call>{"name":"look_up","arguments":${endWord}}`,
    '',
    [{ name: 'look_up', arguments: endWord }],
  ],
  ...['\n', '', ' \\'].map((between): (typeof cases)[number] => [
    `a call behind a string that does not end, and ${JSON.stringify(between)}`,
    hermes,
    `<tool_call>{"name": "add}${between}</tool_call><tool_call>{"name":"add"}</tool_call>`,
    `<tool_call>{"name": "add}${between}</tool_call>`,
    [nothing],
  ]),
  [
    'marks in strings',
    mistral,
    `[TOOL_CALLS][{"name":"look_up","arguments":${markWord}}][TOOL_CALLS]look_up${markWord}[TOOL_CALLS]add{}`,
    '',
    [{ name: 'look_up', arguments: markWord }, { name: 'look_up', arguments: markWord }, nothing],
  ],
  ['JSON that is no call', llama, '{"a": 1}', '{"a": 1}', []],
  ['code', llama, '<|python_tag|>print(1)', '<|python_tag|>print(1)', []],
  ['a brace later on', llama, 'so {"name":"add","parameters":{}}', 'so {"name":"add","parameters":{}}', []],
];

describe('calls of tools in a text', () => {
  it.each(cases)('%s', (_, format, raw, text, calls) => {
    expect(read(format, raw)).toEqual({ text, calls });
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 12 }), (cuts) => {
        expect(read(format, raw, cuts)).toEqual({ text, calls });
      }),
      { numRuns: 30 },
    );
  });

  it('loses no text that is no call, wherever it is cut', () => {
    const parts = fc.constantFrom(
      '<tool_call>',
      '</tool_call>',
      '[TOOL_CALLS]',
      '{',
      '"name"',
      '"',
      '\\',
      ' ',
      '\n',
      'x',
      '<|python',
      '_tag|>',
      '<',
    );
    const texts = fc.array(parts, { maxLength: 20 }).map((list) => list.join(''));
    fc.assert(
      fc.property(fc.constantFrom(hermes, mistral, llama), texts, fc.array(fc.nat()), (format, text, cuts) => {
        expect(read(format, text, cuts)).toEqual({ text, calls: [] });
      }),
    );
  });

  it('reads every character a few times, whatever it is', () => {
    const counted = (format: ToolFormat, text: string): number => {
      let characters = 0;
      const counting: ToolFormat = {
        ...format,
        read(part) {
          characters += part.length;
          return format.read(part);
        },
      };
      expect(read(counting, text)).toEqual({ text, calls: [] });
      return characters / text.length;
    };
    for (const part of ['<tool_call>{"</tool_call>', '<tool_call>"</tool_call>""', '<tool_call>""\n"</tool_call>']) {
      expect(counted(hermes, part.repeat(2000))).toBeLessThan(10);
    }
    const parse = vi.spyOn(JSON, 'parse');
    counted(mistral, '[TOOL_CALLS]{"'.repeat(2000));
    counted(mistral, `[TOOL_CALLS]add${' '.repeat(100_000)}`);
    expect(parse.mock.calls.length).toBeLessThan(30);
    parse.mockRestore();
  });

  it('gives out what can be no call at once', () => {
    const stream = new ToolCallStream(hermes, names);
    expect(stream.push('So <b').text).toBe('So <b');
    expect(stream.push(' <tool').text).toBe(' ');
    expect(stream.push('s').text).toBe('<tools');
  });
});

it('knows what templates do not say', () => {
  expect(toolFormatOf('{{ messages }}')).toBeUndefined();
  expect(toolFormatOf('{{ tools }}')).toBeUndefined();
});
