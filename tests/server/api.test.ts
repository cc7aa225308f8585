/** The API over HTTP, with a model whose answers are known. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { byteTokenizer, tokensOf } from '../support/byte-tokenizer.js';
import { answering, eventsOf, fakeEnd, fakeModel, fakeText, serveModels, type TestServer } from '../support/server.js';

interface Choice {
  readonly index: number;
  readonly text: string;
  readonly finish_reason: string | null;
  readonly message: { readonly role: string; readonly content: string };
  readonly delta: { readonly role?: string; readonly content?: string };
}

interface Answer {
  readonly id: string;
  readonly object: string;
  readonly model: string;
  readonly choices: readonly Choice[];
  readonly usage: unknown;
}

interface Lists {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Record<string, number> | null)[];
  readonly text_offset: readonly number[];
}

const json = async (response: Promise<Response>): Promise<Answer> => (await (await response).json()) as Answer;
const eventsFrom = async (response: Promise<Response>): Promise<Answer[]> =>
  eventsOf(await (await response).text()) as unknown as Answer[];
const greedy = { model: 'fake', temperature: 0 } as const;

describe('the API', () => {
  let server: TestServer;
  beforeAll(async () => {
    const { model } = fakeModel({ slots: 4 });
    server = await serveModels([model]);
  });
  afterAll(() => server.server.close());

  it('lists its models', async () => {
    const list = (await (await server.get('/v1/models')).json()) as { data: object[] };
    expect(list).toMatchObject({ object: 'list', data: [{ id: 'fake', object: 'model', max_model_len: 200 }] });
    expect(await (await server.get('/v1/models/fake')).json()).toEqual(list.data[0]);
    expect((await server.get('/v1/models/other')).status).toBe(404);
  });

  it('completes a text', async () => {
    const prompt = byteTokenizer.encode('Once');
    const answer = await json(server.post('/v1/completions', { ...greedy, prompt: 'Once', max_tokens: 12 }));
    expect(answer).toMatchObject({
      object: 'text_completion',
      model: 'fake',
      choices: [{ index: 0, text: fakeText(prompt, 12), finish_reason: 'length', logprobs: null }],
      usage: { prompt_tokens: 5, completion_tokens: 12, total_tokens: 17 },
    });
    expect(answer.id).toMatch(/^cmpl-\w{32}$/);
    const shortest = await json(server.post('/v1/completions', { ...greedy, prompt: 'Once' }));
    expect(shortest.choices[0]!.text).toBe(fakeText(prompt, 16));
  });

  it('streams the same text, with its usage at the end where that is wanted', async () => {
    const body = { ...greedy, prompt: 'Once', max_tokens: 12, stream: true };
    const events = await eventsFrom(
      server.post('/v1/completions', { ...body, stream_options: { include_usage: true } }),
    );
    const last = events.pop()!;
    expect(last).toMatchObject({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 12, total_tokens: 17 } });
    expect(events.map(({ choices }) => choices[0]!.text).join('')).toBe(fakeText(byteTokenizer.encode('Once'), 12));
    expect(events.map(({ choices }) => choices[0]!.finish_reason).filter((reason) => reason !== null)).toEqual([
      'length',
    ]);
    expect(new Set(events.map(({ id }) => id))).toEqual(new Set([last.id]));
    for (const { usage } of events) expect(usage).toBeNull();
    const plain = await eventsFrom(server.post('/v1/completions', body));
    for (const event of plain) expect(event).not.toHaveProperty('usage');
    expect(plain.at(-1)!.choices[0]!.finish_reason).toBe('length');
  });

  it('answers a conversation, whole and in chunks', async () => {
    const messages = [
      { role: 'developer', content: 'Be kind.' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Hel' },
          { type: 'text', text: 'lo' },
        ],
      },
    ];
    const text = fakeText(tokensOf('s:Be kind.\nu:Hello\na:'), 9);
    const whole = await json(
      server.post('/v1/chat/completions', { ...greedy, messages, max_tokens: 3, max_completion_tokens: 9 }),
    );
    expect(whole).toMatchObject({
      object: 'chat.completion',
      choices: [{ index: 0, message: { role: 'assistant', content: text, refusal: null }, finish_reason: 'length' }],
    });
    const events = await eventsFrom(
      server.post('/v1/chat/completions', { ...greedy, messages, max_tokens: 9, stream: true }),
    );
    const deltas = events.map(({ choices }) => choices[0]!.delta);
    expect(events[0]).toMatchObject({
      object: 'chat.completion.chunk',
      choices: [{ delta: { role: 'assistant', content: '' } }],
    });
    expect(deltas.map(({ content = '' }) => content).join('')).toBe(text);
    expect(events.at(-1)!.choices[0]).toMatchObject({ delta: {}, finish_reason: 'length' });
  });

  it('makes several texts of several prompts, and counts a prompt once', async () => {
    const prompts = ['one', 'three', [10 + 65, 10 + 66]];
    const tokens = [byteTokenizer.encode('one'), byteTokenizer.encode('three'), [10 + 65, 10 + 66]];
    // Prompts are all texts or all tokens.
    expect((await server.post('/v1/completions', { ...greedy, prompt: prompts })).status).toBe(400);
    const body = { ...greedy, prompt: tokens, n: 2, max_tokens: 5 };
    const { choices, usage } = await json(server.post('/v1/completions', body));
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(choices.map(({ text }) => text)).toEqual(
      tokens.flatMap((prompt) => Array<string>(2).fill(fakeText(prompt, 5))),
    );
    expect(usage).toMatchObject({ prompt_tokens: 4 + 6 + 2, completion_tokens: 30 });
    const events = await eventsFrom(server.post('/v1/completions', { ...body, stream: true }));
    const texts = new Map<number, string>();
    for (const {
      choices: [choice],
    } of events)
      texts.set(choice!.index, (texts.get(choice!.index) ?? '') + choice!.text);
    expect(choices.map(({ index }) => texts.get(index))).toEqual(choices.map(({ text }) => text));
  });

  it('ends at stop strings and stop tokens', async () => {
    const { model } = fakeModel(answering('Q', 'one two STOP three'));
    const other = await serveModels([model]);
    const ask = (stop: unknown) =>
      json(other.post('/v1/completions', { ...greedy, prompt: 'Q', max_tokens: 99, stop }));
    expect((await ask('STOP')).choices[0]).toMatchObject({ text: 'one two ', finish_reason: 'stop' });
    expect((await ask(['zzz', ' two'])).choices[0]).toMatchObject({ text: 'one', finish_reason: 'stop' });
    expect((await ask(null)).choices[0]).toMatchObject({ text: 'one two STOP three', finish_reason: 'stop' });
    await other.server.close();
  });

  it('tells how likely the tokens of a completion were, those of its prompt, too', async () => {
    const text = fakeText(byteTokenizer.encode('Hé'), 3);
    const body = { ...greedy, prompt: 'Hé', max_tokens: 3, logprobs: 2 };
    // The fake gives the token it makes 5, those after it 4, 3, 2 and 1, and all others 0.
    const norm = Math.log([5, 4, 3, 2, 1].reduce((sum, logit) => sum + Math.exp(logit), 295));
    const after = (letter: string): string => String.fromCharCode(letter.charCodeAt(0) + 1);
    const { choices } = await json(server.post('/v1/completions', body));
    expect(choices[0]).toMatchObject({ text, logprobs: { tokens: Array.from(text), text_offset: [0, 1, 2] } });
    const { token_logprobs, top_logprobs } = (choices[0] as unknown as { logprobs: Lists }).logprobs;
    for (const logprob of token_logprobs) expect(logprob).toBeCloseTo(5 - norm, 6);
    expect(top_logprobs.map((top) => Object.keys(top!))).toEqual(
      Array.from(text).map((letter) => [letter, after(letter)]),
    );
    const events = await eventsFrom(server.post('/v1/completions', { ...body, stream: true }));
    const streamed = events.map((event) => (event.choices[0] as unknown as { logprobs: Lists | null }).logprobs);
    expect(streamed.flatMap((lists) => lists?.text_offset ?? [])).toEqual([0, 1, 2]);
    expect(streamed.flatMap((lists) => lists?.token_logprobs ?? [])).toEqual(token_logprobs);

    const echoed = (await json(server.post('/v1/completions', { ...body, echo: true, logprobs: 0 }))).choices[0]!;
    const lists = (echoed as unknown as { logprobs: Lists }).logprobs;
    expect(echoed.text).toBe(`Hé${text}`);
    expect(lists.tokens).toEqual(['', 'H', 'bytes:\\xc3', 'bytes:\\xa9', ...Array.from(text)]);
    expect(lists.text_offset).toEqual([0, 0, 1, 1, 2, 3, 4]);
    // Nothing comes before the first token; the fake would have said other letters.
    expect(lists.token_logprobs.slice(0, 2)).toEqual([null, expect.closeTo(-norm, 6)]);
    expect(lists.token_logprobs.slice(4)).toEqual(token_logprobs);
    expect(lists.top_logprobs[0]).toBeNull();
    expect(Object.keys(lists.top_logprobs[1]!)).toEqual(['H']);
    const plain = (await json(server.post('/v1/completions', { ...greedy, prompt: 'Hé', max_tokens: 3, echo: true })))
      .choices[0];
    expect(plain).toMatchObject({ text: `Hé${text}`, logprobs: null });
    const refused = await server.post('/v1/completions', { ...body, echo: true, stream: true });
    expect(await refused.json()).toMatchObject({ error: { code: 'unsupported_parameter', param: 'echo' } });
  });

  it('tells where the tokens of a text begin whose first space is no part of it', async () => {
    const encode = (text: string): number[] => [1, ...tokensOf(` ${text}`)];
    const decode = (ids: readonly number[]): string => byteTokenizer.decode(ids).replace(/^ /, '');
    const { model } = fakeModel({ tokenizer: { ...byteTokenizer, leadingSpaces: 1, encode, decode } });
    const other = await serveModels([model]);
    const body = { ...greedy, prompt: 'ab c', max_tokens: 2, logprobs: 0, echo: true };
    const [choice] = (await json(other.post('/v1/completions', body))).choices;
    const { tokens, text_offset } = (choice as unknown as { logprobs: Lists }).logprobs;
    expect(choice!.text).toBe(tokens.join('').slice(1));
    expect([tokens.slice(0, 6), text_offset]).toEqual([
      ['', ' ', 'a', 'b', ' ', 'c'],
      [0, 0, 0, 1, 2, 3, 4, 5],
    ]);
    await other.server.close();
  });

  const said = answering('Q', 'one two é three four');
  const partOf = (prompt: string): string => `${fakeText(byteTokenizer.encode(prompt), 6).slice(2)}!`;
  it.each([
    ['holds text back', said, ['two STUCK', ' four']],
    ['never comes', said, ['fourteen', 'two é é']],
    ['ends the text inside of what was held back', said, ['o é three', 'two é thru']],
    ['holds another part of each text back', {}, [partOf('Q'), partOf('other')]],
  ])('tells the same places of tokens in a stream, where a stop string %s', async (_, fake, stop) => {
    const { model } = fakeModel(fake);
    const other = await serveModels([model]);
    const body = { ...greedy, prompt: ['Q', 'other'], n: 2, max_tokens: 40, logprobs: 2, stop };
    const listsOf = (answer: Answer): [number, Lists | null][] =>
      answer.choices.map((choice) => [choice.index, (choice as unknown as { logprobs: Lists | null }).logprobs]);
    const whole = listsOf(await json(other.post('/v1/completions', body)));
    const streamed = (await eventsFrom(other.post('/v1/completions', { ...body, stream: true }))).flatMap(listsOf);
    expect(whole.length).toBe(4);
    for (const [index, lists] of whole) {
      const own = streamed.flatMap(([choice, part]) => (choice === index ? (part ?? []) : []));
      expect(own.flatMap(({ text_offset }) => text_offset)).toEqual(lists!.text_offset);
      expect(own.flatMap(({ tokens }) => tokens)).toEqual(lists!.tokens);
      expect(own.flatMap(({ token_logprobs }) => token_logprobs)).toEqual(lists!.token_logprobs);
    }
    await other.server.close();
  });

  it('tells how likely the tokens of an answer were', async () => {
    const { model } = fakeModel(answering('a:', 'ab'));
    const other = await serveModels([model]);
    const body = { ...greedy, messages: [{ role: 'user', content: 'x' }], logprobs: true, top_logprobs: 1 };
    interface Entry {
      readonly token: string;
      readonly logprob: number;
      readonly bytes: number[];
      readonly top_logprobs: Omit<Entry, 'top_logprobs'>[];
    }
    const contentOf = (answer: Answer): Entry[] =>
      (answer.choices[0] as unknown as { logprobs: { content: Entry[] } | null }).logprobs?.content ?? [];
    const whole = await json(other.post('/v1/chat/completions', body));
    // The token that ends the text is no part of it.
    expect(contentOf(whole).map(({ token, bytes }) => [token, bytes])).toEqual([
      ['a', [97]],
      ['b', [98]],
    ]);
    for (const { token, logprob, top_logprobs } of contentOf(whole))
      expect(top_logprobs).toMatchObject([{ token, logprob }]);
    const events = await eventsFrom(other.post('/v1/chat/completions', { ...body, stream: true }));
    expect(events.flatMap(contentOf)).toEqual(contentOf(whole));
    const alone = await other.post('/v1/chat/completions', { ...body, logprobs: false });
    expect(await alone.json()).toMatchObject({ error: { param: 'top_logprobs' } });
    await other.server.close();
  });

  it('reuses the prefix of a conversation and says how much', async () => {
    const body = { ...greedy, prompt: 'a long enough prompt', max_tokens: 6 };
    const first = await json(server.post('/v1/completions', body));
    const longer = body.prompt + first.choices[0]!.text + ' more';
    const second = await json(server.post('/v1/completions', { ...body, prompt: longer }));
    // The last token made was not computed with.
    expect(second.usage).toMatchObject({ prompt_tokens: 32, prompt_tokens_details: { cached_tokens: 1 + 20 + 5 } });
    expect(second.choices[0]!.text).toBe(fakeText(byteTokenizer.encode(longer), 6));
  });

  it('tokenizes and detokenizes', async () => {
    const post = async (path: string, body: unknown): Promise<unknown> => (await server.post(path, body)).json();
    expect(await post('/tokenize', { prompt: 'ab' })).toEqual({
      tokens: [1, ...tokensOf('ab')],
      count: 3,
      max_model_len: 200,
    });
    expect(await post('/tokenize', { prompt: 'ab', add_special_tokens: false })).toMatchObject({
      tokens: tokensOf('ab'),
    });
    const messages = [{ role: 'user', content: 'ab' }];
    expect(await post('/tokenize', { messages, add_generation_prompt: false })).toMatchObject({
      tokens: tokensOf('u:ab\n'),
    });
    expect(await post('/detokenize', { model: 'fake', tokens: tokensOf('héllo') })).toEqual({ prompt: 'héllo' });
    expect(await post('/tokenize', {})).toMatchObject({ error: { param: 'prompt' } });
  });

  it('tells its health, and describes itself', async () => {
    for (const path of ['/health', '/health/ready', '/health/live']) {
      expect(await (await server.get(path)).json()).toEqual({ status: 'ok' });
    }
    const document = (await (await server.get('/openapi.json')).json()) as { paths: Record<string, object> };
    // Every route that is described is there, and the other way round.
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const method of Object.keys(methods)) {
        const request = { method, ...(method === 'post' ? { body: '{}' } : {}) };
        const { status } = await server.get(path.replace('{id}', 'fake'), request);
        expect([path, status]).toEqual([path, method === 'post' ? 400 : 200]);
      }
    }
    expect(Object.keys(document.paths)).toContain('/v1/chat/completions');
  });

  it('counts for Prometheus', async () => {
    const { model } = fakeModel();
    const other = await serveModels([model], { metricsPrefix: 'llm_' });
    const body = { ...greedy, prompt: 'a prompt', max_tokens: 7 };
    await json(other.post('/v1/completions', body));
    await json(other.post('/v1/completions', body));
    await other.get('/nowhere');
    const metrics = await (await other.get('/metrics')).text();
    const value = (name: string): number => Number(new RegExp(`^${name}(\\{.*\\})? (\\S+)$`, 'm').exec(metrics)?.[2]);
    expect(value('llm_prompt_tokens_total')).toBe(18);
    expect(value('llm_generation_tokens_total')).toBe(14);
    expect(value('llm_prefix_cache_hits_total')).toBe(8);
    expect(value('llm_request_success_total')).toBe(2);
    expect(value('llm_time_to_first_token_seconds_count')).toBe(2);
    expect(value('llm_num_requests_running')).toBe(0);
    expect(value('llm_kernel_calls_total')).toBe(model.counters.kernelCalls);
    expect(metrics).toContain('llm_http_responses_total{route="/v1/completions",status="200"} 2');
    expect(metrics).toContain('status="404"');
    expect(metrics).not.toContain('nowhere');
    await other.server.close();
  });

  it('goes on past the end of a text where that is wanted', async () => {
    const { model } = fakeModel({ next: () => fakeEnd });
    const other = await serveModels([model]);
    const ask = async (more: object) =>
      (await json(other.post('/v1/completions', { ...greedy, prompt: 'x', max_tokens: 5, ...more }))).usage;
    expect(await ask({})).toMatchObject({ completion_tokens: 1 });
    expect(await ask({ ignore_eos: true })).toMatchObject({ completion_tokens: 5 });
    await other.server.close();
  });

  it.each([
    ['no JSON', '{', 400, 'invalid_json', null],
    ['no object', '[]', 400, 'invalid_value', null],
    ['no model', { prompt: 'x' }, 400, 'invalid_value', 'model'],
    ['another model', { model: 'gpt', prompt: 'x' }, 404, 'model_not_found', 'model'],
    ['a wrong type', { ...greedy, prompt: 'x', max_tokens: '5' }, 400, 'invalid_value', 'max_tokens'],
    ['a value out of range', { ...greedy, prompt: 'x', top_p: 1.5 }, 400, 'invalid_value', 'top_p'],
    ['an empty stop string', { ...greedy, prompt: 'x', stop: [''] }, 400, 'invalid_value', 'stop.0'],
    ['too many texts', { ...greedy, prompt: 'x', n: 17 }, 400, 'invalid_value', 'n'],
    ['too many texts in all', { ...greedy, prompt: Array(40).fill('x'), n: 2 }, 400, 'invalid_value', 'n'],
    ['an unknown parameter', { ...greedy, prompt: 'x', min_token: 3 }, 400, 'unknown_parameter', 'min_token'],
    [
      'an unknown option of a stream',
      { ...greedy, prompt: 'x', stream_options: { continuous_usage_stats: true } },
      ...([400, 'unknown_parameter', 'stream_options.continuous_usage_stats'] as const),
    ],
    ['what we do not do', { ...greedy, prompt: 'x', suffix: 'y' }, 400, 'unsupported_parameter', 'suffix'],
    [
      'a bias beyond its range',
      { ...greedy, prompt: 'x', logit_bias: { 5: 101 } },
      400,
      'invalid_value',
      'logit_bias.5',
    ],
    ['a bias of no token', { ...greedy, prompt: 'x', logit_bias: { a: 1 } }, 400, 'invalid_value', 'logit_bias.a'],
    [
      'a bias of a token that is not there',
      { ...greedy, prompt: 'x', logit_bias: { 300: 1 } },
      400,
      'invalid_value',
      'logit_bias',
    ],
    [
      'too many biases',
      { ...greedy, prompt: 'x', logit_bias: Object.fromEntries(Array.from({ length: 301 }, (_, i) => [i, 1])) },
      ...([400, 'invalid_value', 'logit_bias'] as const),
    ],
    ['a prompt over the context', { ...greedy, prompt: 'x'.repeat(200) }, 400, 'context_length_exceeded', null],
    ['a text that cannot fit', { ...greedy, prompt: 'x'.repeat(300_000) }, 400, 'context_length_exceeded', null],
    ['a token that does not exist', { ...greedy, prompt: [5, 300] }, 400, 'invalid_value', null],
    ['no prompt', { ...greedy, prompt: [] }, 400, 'invalid_value', 'prompt'],
  ])('refuses %s', async (_, body, status, code, param) => {
    for (const stream of [false, true]) {
      const sent = typeof body === 'string' ? body : { ...body, stream };
      const response = await server.post('/v1/completions', sent);
      expect(response.status).toBe(status);
      expect(await response.json()).toEqual({
        error: { message: expect.any(String) as string, type: 'invalid_request_error', code, param },
      });
    }
  });

  it('takes token ids of several prompts, with several texts of each, echoed and told of', async () => {
    const prompts = [tokensOf('ab'), tokensOf('xyz')];
    const body = { ...greedy, prompt: prompts, n: 2, echo: true, logprobs: 0, max_tokens: 2 };
    const { choices, usage } = await json(server.post('/v1/completions', body));
    const texts = prompts.map((prompt) => byteTokenizer.decode(prompt) + fakeText(prompt, 2));
    expect(choices.map(({ text }) => text)).toEqual([texts[0], texts[0], texts[1], texts[1]]);
    const told = choices.map((choice) =>
      (choice as unknown as { logprobs: { tokens: string[] } }).logprobs.tokens.join(''),
    );
    expect(told).toEqual(choices.map(({ text }) => text));
    expect(usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 8 });
    const single = await json(server.post('/v1/completions', { ...body, prompt: prompts[1], n: 1 }));
    expect(single.choices.map(({ text }) => text)).toEqual([texts[1]]);
  });

  it('hands biases of tokens on', async () => {
    const { model, executable } = fakeModel();
    const other = await serveModels([model]);
    await json(
      other.post('/v1/completions', { ...greedy, prompt: 'x', max_tokens: 1, logit_bias: { 17: -100, 5: 2.5 } }),
    );
    expect(executable.steps.at(-1)!.sampling[0]!.bias).toEqual([
      [5, 2.5],
      [17, -100],
    ]);
    await other.server.close();
  });

  it('does not tokenize what cannot fit', async () => {
    const response = await server.post('/v1/completions', { ...greedy, prompt: 'é'.repeat(101) });
    expect(await response.json()).toMatchObject({ error: { message: expect.stringContaining('202 bytes') as string } });
  });

  it('hands variables of the chat template on, and none that it sets itself', async () => {
    const template =
      '{{ tone }}{% for m in messages %}{{ m.content }}{% endfor %}{{ add_generation_prompt }}{{ think }}:';
    const { model } = fakeModel({ chat: template, ...answering('Hey trueno:', 'Hello') });
    const other = await serveModels([model]);
    const messages = [{ role: 'user', content: 'y ' }];
    const chat_template_kwargs = { tone: 'He', think: 'no', messages: 5, add_generation_prompt: 'x' };
    const body = { messages, chat_template_kwargs };
    const { choices } = await json(other.post('/v1/chat/completions', { ...greedy, ...body }));
    expect(choices[0]).toMatchObject({ message: { content: 'Hello' } });
    const { tokens } = (await (await other.post('/tokenize', body)).json()) as { tokens: number[] };
    expect(byteTokenizer.decode(tokens)).toBe('Hey trueno:');
    await other.server.close();
  });

  it('takes what changes nothing', async () => {
    const body = {
      ...{ ...greedy, user: 'me', metadata: {}, logit_bias: {}, tools: [], logprobs: null, presence_penalty: 0 },
      ...{
        response_format: { type: 'text' },
        seed: null,
        stop: null,
        max_tokens: null,
        top_k: -1,
        parallel_tool_calls: true,
      },
      messages: [{ role: 'user', content: 'x', name: null }],
      max_completion_tokens: 3,
    };
    expect((await server.post('/v1/chat/completions', body)).status).toBe(200);
  });

  it('refuses conversations that it cannot render', async () => {
    const post = async (messages: unknown) =>
      (await server.post('/v1/chat/completions', { ...greedy, messages })).status;
    expect(await post([])).toBe(400);
    expect(await post(Array(20).fill({ role: 'user', content: 'x'.repeat(100) }))).toBe(400);
    expect(await post([{ role: 'tool', content: 'x', tool_call_id: 'y' }])).toBe(400);
    expect(await post([{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'http://x' } }] }])).toBe(400);
    const { model } = fakeModel({ chat: false });
    const other = await serveModels([model]);
    const messages = [{ role: 'user', content: 'x' }];
    const response = await other.post('/v1/chat/completions', { ...greedy, messages });
    expect([response.status, await response.json()]).toMatchObject([400, { error: { code: 'chat_template_failed' } }]);
    await other.server.close();
  });

  it.each([
    [[{ type: 'image_url', image_url: { url: 'http://x' } }], '.0.type: only parts of the type text are supported'],
    [
      [
        { type: 'text', text: 'x' },
        { type: 'input_audio', input_audio: {} },
      ],
      '.1.type: only parts of the type text are supported',
    ],
    [[{ type: 'text', text: 5 }], '.0.text: Invalid input: expected string, received number'],
    [5, ': must be a text, or a list of parts of the type text'],
  ])('says what is wrong with the content %j', async (content, problem) => {
    for (const role of ['user', 'assistant']) {
      const messages = [{ role, content }];
      const response = await server.post('/v1/chat/completions', { ...greedy, messages });
      const message = `messages.0.content${problem}`;
      expect([response.status, await response.json()]).toMatchObject([
        400,
        { error: { code: 'invalid_value', param: message.slice(0, message.indexOf(':')), message } },
      ]);
    }
  });

  it('names what a part of a message has too much', async () => {
    const messages = [{ role: 'user', content: [{ type: 'text', text: 'x', detail: 'low' }] }];
    const response = await server.post('/v1/chat/completions', { ...greedy, messages });
    const param = 'messages.0.content.0.detail';
    expect(await response.json()).toMatchObject({ error: { code: 'unknown_parameter', param } });
  });

  it('answers unknown paths and methods with errors of the same form', async () => {
    const bodies = await Promise.all(
      [server.get('/v2'), server.get('/v1/completions')].map(async (r) => [(await r).status, await (await r).json()]),
    );
    expect(bodies).toMatchObject([
      [404, { error: { code: 'not_found' } }],
      [405, { error: { code: 'method_not_allowed' } }],
    ]);
    expect((await server.get('/v1/completions')).headers.get('allow')).toBe('POST');
  });

  it('hides what went wrong inside, and serves the next request', async () => {
    let broken = true;
    const { model } = fakeModel({
      before: () => {
        if (broken) throw new Error('secret path');
      },
    });
    const other = await serveModels([model]);
    const body = { ...greedy, prompt: 'x', max_tokens: 3 };
    const response = await other.post('/v1/completions', body);
    expect([response.status, await response.text()]).toEqual([500, expect.not.stringContaining('secret')]);
    const stream = await (await other.post('/v1/completions', { ...body, stream: true })).text();
    expect(JSON.parse(stream.replace('data: ', ''))).toMatchObject({
      error: { type: 'server_error', code: 'internal_error' },
    });
    broken = false;
    expect((await other.post('/v1/completions', body)).status).toBe(200);
    await other.server.close();
  });
});
