/** The official client of the OpenAI API, over a real model and over one whose answers are known. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Model } from '../../src/runtime/model.js';
import { tokensOf } from '../support/byte-tokenizer.js';
import { demoModel, fakeModel, fakeText, serveModels, slow, type TestServer } from '../support/server.js';

const key = 'sk-test-key';
const messages = [{ role: 'user' as const, content: 'Once upon a time' }];

describe('the openai client', () => {
  let demo: { readonly model: Model; remove(): void };
  let server: TestServer;
  let client: OpenAI;
  beforeAll(async () => {
    demo = await demoModel(6);
    server = await serveModels([demo.model, fakeModel({ ...slow, context: 2000 }).model], { access: { apiKey: key } });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: key, maxRetries: 0 });
  }, 120_000);
  afterAll(async () => {
    await server.server.close();
    demo.remove();
  });

  it('lists models', async () => {
    const { data } = await client.models.list();
    expect(data.map(({ id }) => id)).toEqual(['demo-chat', 'fake']);
    expect((await client.models.retrieve('fake')).id).toBe('fake');
  });

  it('gets the same answer whole and as a stream', async () => {
    const body = { model: 'demo-chat', messages, max_tokens: 40, seed: 7, temperature: 0.8 };
    const whole = await client.chat.completions.create(body);
    const text = whole.choices[0]!.message.content!;
    expect(text.length).toBeGreaterThan(40);
    expect(whole._request_id).toMatch(/^[\da-f-]{36}$/);
    const stream = await client.chat.completions.create({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    });
    let streamed = '';
    let finish: string | null = null;
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      streamed += chunk.choices[0]?.delta.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    expect([streamed, finish]).toEqual([text, whole.choices[0]!.finish_reason]);
    expect(usage).toMatchObject({
      prompt_tokens: whole.usage!.prompt_tokens,
      completion_tokens: whole.usage!.completion_tokens,
    });
  });

  it('collects a stream of several choices with its helper', async () => {
    const runner = client.chat.completions.stream({
      model: 'fake',
      messages: [{ role: 'user', content: 'x' }],
      temperature: 0,
      n: 2,
      max_tokens: 12,
    });
    const { choices } = await runner.finalChatCompletion();
    const text = fakeText(tokensOf('u:x\na:'), 12);
    expect(choices.map(({ message }) => message.content)).toEqual([text, text]);
  });

  it('completes plain texts', async () => {
    const answer = await client.completions.create({
      model: 'demo-chat',
      prompt: ['Once', 'One day'],
      max_tokens: 5,
      temperature: 0,
    });
    expect(answer.choices).toHaveLength(2);
    expect(answer.usage!.completion_tokens).toBe(10);
  });

  it('stops a stream', async () => {
    const stream = await client.completions.create({ model: 'fake', prompt: 'x', max_tokens: 1900, stream: true });
    let pieces = 0;
    for await (const chunk of stream) {
      expect(chunk.object).toBe('text_completion');
      if (++pieces === 3) break;
    }
    await expect.poll(() => server.server.inFlight).toBe(0);
  });

  it('raises the errors it knows', async () => {
    const wrongKey = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'sk-wrong', maxRetries: 0 });
    await expect(wrongKey.models.list()).rejects.toThrow(OpenAI.AuthenticationError);
    await expect(client.models.retrieve('none')).rejects.toThrow(OpenAI.NotFoundError);
    const long = client.completions.create({ model: 'fake', prompt: 'x'.repeat(3000) });
    await expect(long).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' });
    const tools = client.chat.completions.create({
      ...{ model: 'fake', messages },
      tools: [{ type: 'function', function: { name: 'f' } }],
    });
    await expect(tools).rejects.toMatchObject({ status: 400, code: 'unsupported_parameter', param: 'tools' });
  });

  it('tries again where the server has too much to do', async () => {
    const { model } = fakeModel({ ...slow, slots: 1 });
    const busy = await serveModels([model], { limits: { queue: 0 } });
    const controller = new AbortController();
    const first = await busy.post(
      '/v1/completions',
      { model: 'fake', prompt: 'x', max_tokens: 190, stream: true },
      { signal: controller.signal },
    );
    const patient = new OpenAI({ baseURL: `${busy.url}/v1`, apiKey: 'none', maxRetries: 3 });
    const answer = patient.completions.create({ model: 'fake', prompt: 'x', max_tokens: 3, temperature: 0 });
    await expect.poll(async () => (await (await busy.get('/metrics')).text()).includes('status="503"')).toBe(true);
    controller.abort();
    await first.text().catch(() => undefined);
    expect((await answer).choices[0]!.finish_reason).toBe('length');
    await busy.server.close();
  });

  it('hears in the middle of a stream that it failed', async () => {
    let steps = 0;
    const { model } = fakeModel({
      before: () => {
        if (++steps === 3) throw new Error('bad kernel');
      },
    });
    const broken = await serveModels([model]);
    const other = new OpenAI({ baseURL: `${broken.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const stream = await other.completions.create({ model: 'fake', prompt: 'x', max_tokens: 99, stream: true });
    const read = async (): Promise<void> => {
      for await (const chunk of stream) expect(chunk.choices).toHaveLength(1);
    };
    await expect(read()).rejects.toMatchObject({ code: 'internal_error' });
    await broken.server.close();
  });
});
