import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { TemplateError, UsageError } from '../util/errors.js';
import { ChatRenderer, requireTemplate, type ChatMessage } from './chat-template.js';

// Generous, since a busy machine must not fail a test.
const renderer = new ChatRenderer({ timeMs: 30_000 });
const impatient = new ChatRenderer({ timeMs: 1000 });
afterAll(() => Promise.all([renderer.close(), impatient.close()]));

const talk: readonly ChatMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: ' Hi! ' },
  { role: 'assistant', content: 'Hello.' },
  { role: 'user', content: 'Why?' },
];
const request = { messages: talk, addGenerationPrompt: true, bosToken: '<s>', eosToken: '</s>' };

describe('in the style of the model families', () => {
  test('Llama 3: headers, date, tools', async () => {
    const template = `{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set intro = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set intro = "" %}
{%- endif %}
{{- "[system]\\n" }}
{{- "Today: " + date_string + "\\n" }}
{%- if tools is not none %}
    {%- for tool in tools %}
        {{- tool | tojson(indent=2) }}
        {{- "\\n" }}
    {%- endfor %}
{%- endif %}
{{- intro + "[eot]" }}
{%- for message in messages %}
    {{- '[' + message['role'] + "]\\n" + message['content'] | trim + '[eot]' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "[assistant]\\n" }}
{%- endif %}
`;
    const now = new Date(2026, 1, 3);
    expect(await renderer.render(template, { ...request, now })).toBe(
      '<s>[system]\nToday: 03 Feb 2026\nBe brief.[eot][user]\nHi![eot][assistant]\nHello.[eot][user]\nWhy?[eot][assistant]\n',
    );
    const tools = [{ name: 'add', n: 1 }];
    const messages = talk.slice(1, 2);
    expect(await renderer.render(template, { ...request, messages, tools, now, addGenerationPrompt: false })).toBe(
      '<s>[system]\nToday: 03 Feb 2026\n{\n  "name": "add",\n  "n": 1\n}\n[eot][user]\nHi![eot]',
    );
  });

  test('ChatML: a default system message, a variable of the caller', async () => {
    const template = `{% if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if loop.first and message.role == "system" %}
<|im_start|>system
{{ message.content }}<|im_end|>
{% else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>' ~ '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}`;
    expect(await renderer.render(template, request)).toBe(
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi! <|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n' +
        '<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n',
    );
    const messages = [{ role: 'user', content: 'Why?' }] as const;
    expect(await renderer.render(template, { ...request, messages, variables: { enable_thinking: false } })).toBe(
      '<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n',
    );
  });

  const mistral = `{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate, found ' + message.role) }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {%- if loop.last and system is defined %}
            {{- '[INST] ' + system + '\\n\\n' + message.content + ' [/INST]' }}
        {%- else %}
            {{- '[INST] ' + message.content + ' [/INST]' }}
        {%- endif %}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
`;
  test('Mistral: the system message goes into the last turn', async () => {
    expect(await renderer.render(mistral, request)).toBe(
      '<s>[INST]  Hi!  [/INST] Hello.</s>[INST] Be brief.\n\nWhy? [/INST]',
    );
  });

  test('Mistral: raise_exception becomes a TemplateError with its words', async () => {
    const messages: ChatMessage[] = [{ role: 'assistant', content: 'Me first.' }];
    const result = renderer.render(mistral, { ...request, messages });
    await expect(result).rejects.toThrow(TemplateError);
    await expect(result).rejects.toThrow('Roles must alternate, found assistant');
  });

  test('Gemma: the assistant is called model', async () => {
    const template = `{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model
' }}{% endif %}`;
    expect(await renderer.render(template, { ...request, messages: talk.slice(1) })).toBe(
      '<s><start_of_turn>user\nHi!<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n' +
        '<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n',
    );
  });
});

describe('variables and functions', () => {
  const render = (template: string, more = {}): Promise<string> => renderer.render(template, { ...request, ...more });

  test('strftime_now, in English, in local time', async () => {
    const now = new Date(2024, 11, 31, 0, 5, 9);
    expect(await render('{{ strftime_now("%A %a %d %B %b %Y %y %m %H %I %M %S %p %j %% %Q") }}', { now })).toBe(
      'Tuesday Tue 31 December Dec 2024 24 12 00 12 05 09 AM 366 % %Q',
    );
  });

  test('range', async () => {
    expect(await render('{% for i in range(3) %}{{ i }},{% endfor %}')).toBe('0,1,2,');
    expect(await render('{% for i in range(5, 0, -2) %}{{ i }},{% endfor %}')).toBe('5,3,1,');
    await expect(render('{{ range(1, 5, 0) }}')).rejects.toThrow(TemplateError);
  });

  test('absent tokens and tools', async () => {
    const template = '{{ bos_token is defined }} {{ eos_token }} {{ tools is none }} {{ documents is none }}';
    expect(await render(template, { bosToken: undefined, eosToken: '</s>' })).toBe('false </s> true true');
  });

  test('further fields of a message', async () => {
    const messages = [{ role: 'assistant', content: '', tool_calls: [{ name: 'add' }] }];
    expect(await render('{{ messages[0].tool_calls[0].name }}', { messages })).toBe('add');
  });

  test('text comes through unchanged', async () => {
    const content = '{{ not code }} {% nor this %} \ud83d\ude00 e\u0301 \u0000 \ufeff </s>';
    expect(await render('{{ messages[0].content }}', { messages: [{ role: 'user', content }] })).toBe(content);
  });

  test('a value that is no JSON is a usage error', async () => {
    await expect(render('x', { variables: { big: 1n } })).rejects.toThrow(UsageError);
  });
});

describe('hostile templates end in a TemplateError', () => {
  const doubling = (rounds: number, start: string, step: string): string =>
    `{% set ns = namespace(x=${start}) %}{% for i in range(${rounds}) %}{% set ns.x = ${step} %}{% endfor %}{{ ns.x|length }}`;
  test.each([
    ['broken syntax', '{% if %}', /failed/],
    ['never closed', '{% for x in messages %}', /failed/],
    ['unknown function', '{{ os.system("x") }}', /failed/],
    [
      'endless loop',
      '{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}',
      /longer than 1 s/,
    ],
    ['huge range', '{{ range(10000000000) }}', /range/],
    [
      'long output',
      `{% for a in range(1000) %}${'x'.repeat(5000)}{% endfor %}`,
      /made 5000000 characters, at most 4194304 are allowed/,
    ],
    ['doubled text', doubling(25, '"xxxxxxxxxxxxxxxx"', '(ns.x ~ ns.x)|upper'), /memory|longer/],
    ['doubled list', doubling(20, 'range(100000)', 'ns.x + ns.x'), /memory|longer/],
    ['wide indent', '{{ ("x\\ny"|indent(500000000))|upper }}', /memory|longer/],
    ['recursion', '{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}', /failed/],
    ['deep parentheses', `{{ ${'('.repeat(100_000)} }}`, /failed/],
    ['deep blocks', '{% if true %}'.repeat(50_000), /failed/],
    ['prototype', '{{ messages.constructor.constructor("return process")() }}', /failed/],
    ['prototype of a function', '{{ range.constructor("return process")() }}', /failed/],
    ['prototype of a string', '{{ "".__proto__.constructor.constructor("return 1")() }}', /failed/],
    ['long message', `{{ raise_exception("x" ~ "${'y'.repeat(100_000)}") }}`, /failed: xy{1000,1999}$/],
    ['large template', 'x'.repeat(2_000_000), /2000000 characters/],
  ])('%s', async (_name, template, message) => {
    const patient = String(message).includes('failed') || String(message).includes('characters');
    const victim = patient ? renderer : impatient;
    const result = victim.render(template, request);
    await expect(result).rejects.toThrow(TemplateError);
    await expect(result).rejects.toThrow(message);
    expect(await victim.render('{{ bos_token }}', request)).toBe('<s>');
  });

  test('prototypes are not there', async () => {
    const template = '{{ "".constructor }}|{{ messages.__proto__ }}|{{ messages[0].toString }}|{{ range.prototype }}';
    expect(await renderer.render(template, request)).toBe('|||');
  });
});

test('renders asked for at once are done in turn', async () => {
  const numbers = [1, 2, 3, 4, 5];
  const texts = numbers.map((n) => renderer.render('{{ n }}', { ...request, variables: { n } }));
  expect(await Promise.all(texts)).toEqual(['1', '2', '3', '4', '5']);
});

test('a closed renderer starts again', async () => {
  const other = new ChatRenderer();
  await other.close();
  expect(await other.render('{{ 1 + 1 }}', request)).toBe('2');
  await other.close();
});

test('a program that forgets to close its renderer ends all the same', () => {
  const built = new URL('../../dist/text/chat-template.js', import.meta.url);
  const program = `
    const { ChatRenderer } = await import(${JSON.stringify(built.href)});
    console.log(await new ChatRenderer().render('{{ bos_token }}', { messages: [], addGenerationPrompt: false, bosToken: 'B' }));`;
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    encoding: 'utf8',
  });
  expect(output).toBe('B\n');
});

test('a template that is missing', () => {
  for (const none of [undefined, '']) {
    expect(() => requireTemplate(none)).toThrow(/the model has no chat template; use an instruction-tuned/);
  }
});
