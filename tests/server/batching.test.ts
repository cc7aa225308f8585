/** Continuous batching with a real model on the CPU: neighbours change no token. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Model } from '../../src/runtime/model.js';
import { demoModel, serveModels, type TestServer } from '../support/server.js';

interface Answer {
  readonly choices: readonly { readonly text: string }[];
  readonly usage: { readonly prompt_tokens_details: { readonly cached_tokens: number } };
}

const beginnings = [
  'Once upon a time',
  'The little dog ran to the park. He saw',
  'Lily and Tom wanted to play with the big red ball, but',
  'One day, a bird',
];

/** Prompts of several lengths, some with a beginning in common, with all kinds of sampling. */
const bodies = Array.from({ length: 32 }, (_, i) => ({
  model: 'demo-chat',
  prompt: beginnings[i % 4]! + ' and then'.repeat((i % 5) * (i % 3)),
  max_tokens: 8 + ((i * 7) % 40),
  seed: 1000 + i,
  temperature: i % 8 === 0 ? 0 : 0.7 + (i % 3) * 0.3,
  ...(i % 4 === 1 ? { top_k: 20 } : {}),
  ...(i % 4 === 2 ? { top_p: 0.9, min_p: 0.02 } : {}),
  ...(i % 4 === 3 ? { repetition_penalty: 1.2 } : {}),
  ...(i % 8 === 6 ? { logit_bias: { [100 + i]: 3, [200 + i]: -100 } } : {}),
  ...(i % 8 === 5 ? { presence_penalty: 0.5, frequency_penalty: 0.3 } : {}),
}));

describe('continuous batching', () => {
  let demo: { readonly model: Model; remove(): void };
  let server: TestServer;
  beforeAll(async () => {
    demo = await demoModel(6);
    server = await serveModels([demo.model]);
  }, 120_000);
  afterAll(async () => {
    await server.server.close();
    demo.remove();
  });

  const ask = async (body: object): Promise<Answer> => {
    const response = await server.post('/v1/completions', body);
    expect(response.status).toBe(200);
    return (await response.json()) as Answer;
  };

  it('makes the same 32 texts at once as one by one', async () => {
    const alone: string[] = [];
    for (const body of bodies) alone.push((await ask(body)).choices[0]!.text);
    // Different enough that a mix-up would show.
    expect(new Set(alone).size).toBeGreaterThan(28);
    for (let round = 0; round < 2; round++) {
      const together = await Promise.all(bodies.map(ask));
      expect(together.map(({ choices }) => choices[0]!.text)).toEqual(alone);
    }
  });

  it('keeps to schemas beside texts that have none', async () => {
    const legs = { type: 'integer', minimum: 2, maximum: 8 };
    const schema = {
      type: 'object',
      properties: { name: { type: 'string', maxLength: 12 }, legs },
      required: ['name', 'legs'],
    };
    const json = bodies.slice(0, 4).map(({ prompt, ...body }) => ({
      ...{ ...body, max_tokens: 150, messages: [{ role: 'user', content: prompt }] },
      response_format: { type: 'json_schema', json_schema: { name: 'animal', schema } },
    }));
    const chat = async (body: object): Promise<string> => {
      const response = await server.post('/v1/chat/completions', body);
      const { choices } = (await response.json()) as { choices: { message: { content: string } }[] };
      return choices[0]!.message.content;
    };
    const plain = await Promise.all(bodies.slice(0, 4).map(ask));
    const alone: string[] = [];
    for (const body of json) alone.push(await chat(body));
    const [together, beside] = await Promise.all([
      Promise.all(json.map(chat)),
      Promise.all(bodies.slice(0, 4).map(ask)),
    ]);
    expect(together).toEqual(alone);
    expect(beside.map(({ choices }) => choices[0]!.text)).toEqual(plain.map(({ choices }) => choices[0]!.text));
    for (const text of together) {
      const { name, legs: count } = JSON.parse(text) as { name: string; legs: number };
      expect([name.length <= 12, count >= 2 && count <= 8]).toEqual([true, true]);
    }
  });

  it('gives the first of several texts the seed that was asked for, and the others others', async () => {
    const body = { ...bodies[1]!, max_tokens: 20 };
    const one = await ask(body);
    const four = await ask({ ...body, n: 4 });
    expect(four.choices[0]!.text).toBe(one.choices[0]!.text);
    expect(new Set(four.choices.map(({ text }) => text)).size).toBe(4);
  });

  it('tells the same likelihoods of a text when it is made and when it is read, among others', async () => {
    interface WithLogprobs {
      readonly choices: readonly { readonly text: string; readonly logprobs: { readonly token_logprobs: number[] } }[];
    }
    const askFor = async (body: object): Promise<WithLogprobs> => (await ask(body)) as unknown as WithLogprobs;
    const body = { model: 'demo-chat', prompt: beginnings[0]!, max_tokens: 24, temperature: 0, logprobs: 1 };
    const neighbours = Promise.all(bodies.slice(0, 8).map(ask));
    const made = (await askFor(body)).choices[0]!;
    await neighbours;
    expect(made.text).toBe((await ask({ ...body, logprobs: null })).choices[0]!.text);
    const more = Promise.all(bodies.slice(8, 12).map(ask));
    const read = await askFor({ ...body, prompt: body.prompt + made.text, echo: true, max_tokens: 1 });
    await more;
    const made24 = read.choices[0]!.logprobs.token_logprobs.slice(-25, -1);
    made24.forEach((logprob, i) => expect(logprob).toBeCloseTo(made.logprobs.token_logprobs[i]!, 5));
  });

  it('makes the same text with what is in the cache as without', async () => {
    const body = { model: 'demo-chat', prompt: beginnings[2]!, max_tokens: 40, seed: 5 };
    const first = (await ask(body)).choices[0]!.text;
    const next = { ...body, prompt: body.prompt + first };
    const warm = await ask(next);
    expect(warm.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(20);
    // Other prompts overwrite every slot.
    await Promise.all(bodies.slice(0, 12).map((other) => ask({ ...other, prompt: `Now ${other.prompt}` })));
    const cold = await ask(next);
    // The token that begins every text.
    expect(cold.usage.prompt_tokens_details.cached_tokens).toBe(1);
    expect(cold.choices[0]!.text).toBe(warm.choices[0]!.text);
  });
});
