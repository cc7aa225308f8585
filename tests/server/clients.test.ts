/** What people call such servers with: the openai package with its helpers, LangChain.js, the AI SDK, curl. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { tool as langChainTool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { generateText, Output, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { answeringAll, fakeModel, serveModels, slow, toolTemplate, type TestServer } from '../support/server.js';

const animal = z.object({ kind: z.enum(['cat', 'dog']), legs: z.int().min(1).max(4), tame: z.boolean() });
const question = 'How is the weather in Oslo?';
const cities = z.object({ city: z.string() });
const report = ({ city }: { city: string }): string => `rain in ${city}`;

let server: TestServer;
let baseURL: string;
beforeAll(async () => {
  const answers = answeringAll({
    [`user:${question}\na:`]: '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>',
    '(weather)\na:': 'It rains.',
    'user:Hello\na:': 'Hello, you.',
  });
  const tools = fakeModel({ chat: toolTemplate, context: 3000, ...answers }).model;
  const talker = fakeModel({ ...slow, context: 3000 }).model;
  Object.defineProperty(talker, 'name', { value: 'talker' });
  server = await serveModels([tools, talker]);
  baseURL = `${server.url}/v1`;
});
afterAll(() => server.server.close());

describe('the openai package', () => {
  const client = (): OpenAI => new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });

  it('parses what it described with zod', async () => {
    const { choices } = await client().chat.completions.parse({
      model: 'talker',
      messages: [{ role: 'user', content: 'x' }],
      response_format: zodResponseFormat(animal, 'animal'),
    });
    expect(animal.safeParse(choices[0]!.message.parsed).success).toBe(true);
  });

  it('runs tools to the end of the conversation', async () => {
    const called: string[] = [];
    const runner = client().chat.completions.runTools({
      model: 'fake',
      messages: [{ role: 'user', content: question }],
      tools: [
        {
          type: 'function',
          function: {
            name: 'weather',
            description: 'tells the weather',
            parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
            parse: (text: string) => cities.parse(JSON.parse(text)),
            function: (args: z.infer<typeof cities>) => {
              called.push(args.city);
              return report(args);
            },
          },
        },
      ],
    });
    expect([await runner.finalContent(), called]).toEqual(['It rains.', ['Oslo']]);
  });

  it('gathers streamed calls', async () => {
    const runner = client().chat.completions.stream({
      model: 'fake',
      messages: [{ role: 'user', content: question }],
      tools: [{ type: 'function', function: { name: 'weather', parameters: {} } }],
    });
    const message = await runner.finalMessage();
    expect(message.tool_calls).toMatchObject([{ function: { name: 'weather', arguments: '{"city":"Oslo"}' } }]);
  });
});

describe('LangChain.js', () => {
  const chat = (model: string): ChatOpenAI =>
    new ChatOpenAI({ model, apiKey: 'none', temperature: 0, maxRetries: 0, configuration: { baseURL } });

  it('answers, streams and counts', async () => {
    const whole = await chat('fake').invoke('Hello');
    expect(whole.text).toBe('Hello, you.');
    expect(whole.usage_metadata).toMatchObject({ output_tokens: 12 });
    let text = '';
    for await (const chunk of await chat('fake').stream('Hello')) text += chunk.text;
    expect(text).toBe('Hello, you.');
  });

  it('calls tools', async () => {
    const weather = langChainTool(report, { name: 'weather', description: 'tells the weather', schema: cities });
    const answer = await chat('fake').bindTools([weather]).invoke(question);
    expect(answer.tool_calls).toMatchObject([{ name: 'weather', args: { city: 'Oslo' } }]);
  });

  it('gets structured output', async () => {
    const structured = chat('talker').withStructuredOutput(animal, { name: 'animal', method: 'jsonSchema' });
    expect(animal.safeParse(await structured.invoke('x')).success).toBe(true);
  });
});

describe('the AI SDK', () => {
  const model = (name: string) =>
    createOpenAICompatible({ name: 'kloop', baseURL, supportsStructuredOutputs: true })(name);

  it('answers with the help of a tool', async () => {
    const { text, steps } = await generateText({
      model: model('fake'),
      prompt: question,
      tools: { weather: tool({ description: 'tells the weather', inputSchema: cities, execute: report }) },
      stopWhen: stepCountIs(3),
    });
    expect([text, steps.length]).toEqual(['It rains.', 2]);
  });

  it('gets objects', async () => {
    const { output: object } = await generateText({
      model: model('talker'),
      prompt: 'x',
      output: Output.object({ schema: animal }),
    });
    expect(animal.safeParse(object).success).toBe(true);
  });

  it('streams, and stops where it is told to', async () => {
    const controller = new AbortController();
    const { textStream } = streamText({ model: model('talker'), prompt: 'x', abortSignal: controller.signal });
    let pieces = 0;
    for await (const piece of textStream) {
      expect(piece).not.toBe('');
      if (++pieces === 3) controller.abort();
    }
    expect(pieces).toBeGreaterThanOrEqual(3);
    await expect.poll(() => server.server.inFlight).toBe(0);
  });
});

it('curl', async () => {
  const body = JSON.stringify({ model: 'fake', messages: [{ role: 'user', content: 'Hello' }], stream: true });
  const args = ['-sN', '-H', 'Content-Type: application/json', '-d', body, `${baseURL}/chat/completions`];
  const { stdout } = await promisify(execFile)('curl', args);
  expect(stdout).toMatch(/^data: \{[^\n]*\}\n\n[^]*data: \[DONE\]\n\n$/);
});
