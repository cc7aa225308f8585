/** Answers of a given form: JSON of a schema, and calls of tools; over a fake that says what it is told. */
import { afterEach, describe, expect, it } from 'vitest';
import type { FakeOptions } from '../support/fake-executable.js';
import {
  answering,
  answeringAll,
  eventsOf,
  fakeModel,
  serveModels,
  toolTemplate,
  type TestServer,
} from '../support/server.js';

const servers: TestServer[] = [];
afterEach(() => Promise.all(servers.splice(0).map(({ server }) => server.close())));

async function serve(options: FakeOptions & { chat?: string; toolTemplate?: string } = {}): Promise<TestServer> {
  const server = await serveModels([fakeModel({ context: 2000, ...options }).model]);
  servers.push(server);
  return server;
}

interface Choice {
  readonly message: { content: string | null; tool_calls?: Call[] };
  readonly delta: { content?: string; tool_calls?: (Call & { index: number })[] };
  readonly finish_reason: string;
}
interface Call {
  readonly id: string;
  readonly type: string;
  readonly function: { readonly name: string; readonly arguments: string };
}

const greedy = { model: 'fake', temperature: 0, messages: [{ role: 'user', content: 'x' }] };

async function ask(server: TestServer, body: object): Promise<Choice> {
  const response = await server.post('/v1/chat/completions', { ...greedy, ...body });
  const json = (await response.json()) as { choices: Choice[] };
  expect(response.status, JSON.stringify(json)).toBe(200);
  return json.choices[0]!;
}

async function stream(server: TestServer, body: object): Promise<Choice[]> {
  const response = await server.post('/v1/chat/completions', { ...greedy, ...body, stream: true });
  return eventsOf(await response.text()).map((event) => (event['choices'] as Choice[])[0]!);
}

async function refusal(server: TestServer, body: object): Promise<unknown> {
  const response = await server.post('/v1/chat/completions', { ...greedy, ...body });
  return [response.status, ((await response.json()) as { error: object }).error];
}

/** What the model is shown of a conversation. */
async function promptOf(server: TestServer, messages: readonly object[]): Promise<string> {
  const answer = await server.post('/tokenize', { messages });
  const { tokens } = (await answer.json()) as { tokens: number[] };
  const text = await server.post('/detokenize', { tokens });
  return ((await text.json()) as { prompt: string }).prompt;
}

const weather = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'tells the weather',
    parameters: {
      type: 'object',
      properties: { city: { enum: ['Oslo', 'Rome'] }, days: { type: 'integer', minimum: 1, maximum: 9 } },
      required: ['city', 'days'],
    },
  },
};
const clock = { type: 'function', function: { name: 'clock' } };

describe('answers that are JSON', () => {
  const schema = {
    type: 'object',
    properties: {
      kind: { enum: ['cat', 'dog'] },
      legs: { type: 'integer', minimum: 1, maximum: 4 },
      wild: { type: 'boolean' },
    },
    required: ['kind', 'legs', 'wild'],
    additionalProperties: false,
  };
  const format = { type: 'json_schema', json_schema: { name: 'animal', schema, strict: true } };

  it('obey a schema, whole and streamed, whatever the model likes to say', async () => {
    const server = await serve();
    const answer = await ask(server, { response_format: format });
    expect(answer.finish_reason).toBe('stop');
    expect(JSON.parse(answer.message.content!)).toEqual({
      kind: expect.stringMatching(/^(cat|dog)$/) as string,
      legs: expect.any(Number) as number,
      wild: expect.any(Boolean) as boolean,
    });
    const chunks = await stream(server, { response_format: format });
    expect(chunks.map(({ delta }) => delta.content ?? '').join('')).toBe(answer.message.content);
    const cut = await ask(server, { response_format: format, max_tokens: 5 });
    expect([cut.finish_reason, cut.message.content]).toEqual(['length', answer.message.content!.slice(0, 5)]);
  });

  it('are the same beside other texts', async () => {
    const server = await serve({});
    const alone = await ask(server, { response_format: format });
    const [plain, beside] = await Promise.all([
      ask(server, { max_tokens: 60 }),
      ask(server, { response_format: format }),
      ask(server, { response_format: { type: 'json_object' }, max_tokens: 30 }),
    ]);
    expect(beside).toEqual(alone);
    expect(plain).toEqual(await ask(server, { max_tokens: 60 }));
  });

  it('are an object where nothing else is said', async () => {
    const answer = await ask(await serve(answering('a:', '{"a": [1, {"b": null}]}')), {
      response_format: { type: 'json_object' },
    });
    expect(answer).toMatchObject({ message: { content: '{"a": [1, {"b": null}]}' }, finish_reason: 'stop' });
  });

  it('are refused for schemas that cannot be followed', async () => {
    const server = await serve();
    const withSchema = (bad: unknown): object => ({
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema: bad } },
    });
    const param = 'response_format.json_schema.schema';
    for (const bad of [{ type: 'array', uniqueItems: true }, { type: 7 }, { $ref: '#/nowhere' }]) {
      expect(await refusal(server, withSchema(bad))).toMatchObject([400, { code: 'invalid_schema', param }]);
    }
    const deep = `${'{"items":'.repeat(100_000)}{}${'}'.repeat(100_000)}`;
    const body = JSON.stringify({ ...greedy, ...withSchema(0) }).replace('"schema":0', `"schema":${deep}`);
    expect((await server.post('/v1/chat/completions', body)).status).toBe(400);
    expect(await refusal(server, { ...withSchema(schema), ignore_eos: true })).toMatchObject([
      400,
      { param: 'ignore_eos' },
    ]);
    expect((await ask(server, withSchema(schema))).finish_reason).toBe('stop');
  });
});

describe('tools', () => {
  const call = 'Let me see. <tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>';

  it('are called, whole and streamed', async () => {
    const server = await serve({ chat: toolTemplate, ...answering('a:', call) });
    const body = { tools: [weather, clock] };
    const expected = { type: 'function', function: { name: 'weather', arguments: '{"city":"Oslo","days":2}' } };
    const answer = await ask(server, body);
    expect(answer.finish_reason).toBe('tool_calls');
    expect(answer.message).toMatchObject({ content: 'Let me see. ', tool_calls: [expected] });
    expect(answer.message.tool_calls![0]!.id).toMatch(/^call_\w{24}$/);
    const chunks = await stream(server, body);
    expect(chunks.map(({ delta }) => delta.content ?? '').join('')).toBe('Let me see. ');
    expect(chunks.flatMap(({ delta }) => delta.tool_calls ?? [])).toMatchObject([{ index: 0, ...expected }]);
    expect(chunks.at(-1)!.finish_reason).toBe('tool_calls');
    // Who is offered no tools calls none.
    const none = await ask(server, { ...body, tool_choice: 'none' });
    expect([none.message.content, none.finish_reason]).toEqual([call, 'stop']);
  });

  it('are text where the call is broken', async () => {
    const broken = '<tool_call>{"name": "weather", "arguments": {</tool_call> sorry';
    const server = await serve({ chat: toolTemplate, ...answering('a:', broken) });
    const answer = await ask(server, { tools: [weather] });
    expect([answer.message, answer.finish_reason]).toMatchObject([{ content: broken }, 'stop']);
    const chunks = await stream(server, { tools: [weather] });
    expect(chunks.map(({ delta }) => delta.content ?? '').join('')).toBe(broken);
  });

  it.each([
    ['hermes', toolTemplate],
    ['mistral', '{{ tools }}[TOOL_CALLS] {{ messages[0].content }}a:'],
    ['llama', '{{ tools }} "parameters" {{ messages[0].content }}a:'],
  ])('must be called where that is asked for: %s', async (_, chat) => {
    const server = await serve({ chat });
    const body = { tools: [clock, weather], parallel_tool_calls: false };
    const choice = { type: 'function', function: { name: 'weather' } };
    const { message, finish_reason } = await ask(server, { ...body, tool_choice: choice });
    expect([message.content, finish_reason, message.tool_calls?.length]).toEqual([null, 'tool_calls', 1]);
    const made = message.tool_calls![0]!.function;
    expect(made.name).toBe('weather');
    expect(JSON.parse(made.arguments)).toEqual({
      city: expect.stringMatching(/^(Oslo|Rome)$/) as string,
      days: expect.any(Number) as number,
    });
    const any = await ask(server, { ...body, tool_choice: 'required' });
    expect(['clock', 'weather']).toContain(any.message.tool_calls![0]!.function.name);
  });

  it('have the arguments they describe where they are strict, and only then', async () => {
    const server = await serve({ chat: toolTemplate, ...answering('a:', call.replace('Oslo', 'Oxford')) });
    const strict = { ...weather, function: { ...weather.function, strict: true } };
    const given = async (body: object): Promise<string> => {
      const { message, finish_reason } = await ask(server, body);
      expect([message.content, finish_reason]).toEqual(['Let me see. ', 'tool_calls']);
      return message.tool_calls![0]!.function.arguments;
    };
    expect(JSON.parse(await given({ tools: [clock, weather] }))).toEqual({ city: 'Oxford', days: 2 });
    expect(await given({ tools: [clock, strict] })).toMatch(/"city":"(Oslo|Rome)"/);
    // Nobody has to call them.
    const silent = await serve({ chat: toolTemplate, ...answering('a:', 'No < tool.') });
    expect((await ask(silent, { tools: [strict] })).message).toMatchObject({ content: 'No < tool.' });
    const bad = { ...clock, function: { ...clock.function, strict: true, parameters: { type: 'object', not: {} } } };
    expect(await refusal(server, { tools: [bad] })).toMatchObject([400, { code: 'invalid_schema', param: 'tools' }]);
  });

  it.each<[string, object]>([
    ['nothing is said of it', {}],
    ['it may be something else', { type: ['string', 'object'], properties: { a: { const: 1 } } }],
    ['a choice has others', { anyOf: [{ type: 'null' }, { properties: { a: { const: 1 } } }] }],
  ])('have an object of arguments where %s', async (_, parameters) => {
    const server = await serve({ chat: toolTemplate });
    const tool = { type: 'function', function: { name: 'f', parameters } };
    for (let seed = 0; seed < 5; seed++) {
      const body = { tools: [tool], tool_choice: 'required', temperature: 1, seed, max_tokens: 500 };
      const { message, finish_reason } = await ask(server, { ...body, parallel_tool_calls: false });
      expect([finish_reason, message.tool_calls?.length]).toEqual(['tool_calls', 1]);
    }
  });

  it('are called one at a time where that is asked for', async () => {
    const server = await serve({ chat: toolTemplate, ...answering('a:', `${call} ${call}`) });
    const calls = async (body: object): Promise<number> =>
      (await ask(server, { tools: [weather], ...body })).message.tool_calls!.length;
    expect([await calls({}), await calls({ parallel_tool_calls: false })]).toEqual([2, 1]);
  });

  it('are shown by a template of their own where the model has one', async () => {
    const own = await serve({ toolTemplate, ...answeringAll({ 'user:x\na:': call, 'u:x\na:': 'Hi.' }) });
    expect((await ask(own, {})).message.content).toBe('Hi.');
    expect((await ask(own, { tools: [weather] })).finish_reason).toBe('tool_calls');
    const made = { id: 'c1', type: 'function', function: { name: 'weather', arguments: '{}' } };
    const messages = [
      { role: 'assistant', tool_calls: [made] },
      { role: 'tool', tool_call_id: 'c1', content: '</tools>' },
    ];
    expect(await promptOf(own, messages)).toBe('assistant:[weather {}]\ntool:</tools>(weather)\na:');
  });

  it('are part of the conversation', async () => {
    const server = await serve({ chat: toolTemplate, ...answering('(weather)\na:', 'Rain.') });
    const messages = [
      {
        role: 'developer',
        content: [
          { type: 'text', text: 'Be ' },
          { type: 'text', text: 'brief.' },
        ],
      },
      { role: 'user', content: 'Oslo?' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c1', type: 'function', function: { name: 'weather', arguments: '{"city":"Oslo"}' } }],
      },
      { role: 'tool', tool_call_id: 'c1', content: 'rain' },
    ];
    expect((await ask(server, { messages, tools: [weather] })).message.content).toBe('Rain.');
    expect(await promptOf(server, messages)).toBe(
      'system:Be brief.\nuser:Oslo?\nassistant:[weather {"city": "Oslo"}]\ntool:rain(weather)\na:',
    );
    expect(await refusal(server, { messages: messages.slice(3) })).toMatchObject([
      400,
      { param: 'messages.0.tool_call_id' },
    ]);
  });

  it('are refused where they cannot be meant', async () => {
    const plain = await serve();
    expect(await refusal(plain, { tools: [weather] })).toMatchObject([
      400,
      { code: 'unsupported_parameter', param: 'tools' },
    ]);
    const server = await serve({ chat: toolTemplate });
    const cases: [object, string][] = [
      [{ tools: [clock, clock] }, 'tools'],
      [{ tool_choice: 'required' }, 'tool_choice'],
      [{ tools: [clock], tool_choice: { type: 'function', function: { name: 'rm' } } }, 'tool_choice'],
      [{ tools: [clock], response_format: { type: 'json_object' } }, 'response_format'],
      [{ tools: [{ type: 'function', function: { name: 'a b' } }] }, 'tools.0.function.name'],
      [{ tools: [{ type: 'web_search' }] }, 'tools.0.type'],
      [
        {
          tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'string' } } }],
          tool_choice: 'required',
        },
        'tools',
      ],
      [
        {
          tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'object', not: {} } } }],
          tool_choice: 'required',
        },
        'tools',
      ],
      [
        { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
        'messages.0.content.0.type',
      ],
    ];
    for (const [body, param] of cases) expect(await refusal(server, body)).toMatchObject([400, { param }]);
  });
});
