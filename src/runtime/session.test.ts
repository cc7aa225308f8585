import { describe, expect, it } from 'vitest';
import { byteTokenizer, tokensOf } from '../../tests/support/byte-tokenizer.js';
import { continuation, FakeExecutable, type FakeOptions } from '../../tests/support/fake-executable.js';
import { defined } from '../util/assert.js';
import { ContextOverflowError, TemplateError, UsageError } from '../util/errors.js';
import { findPreset } from '../models/presets.js';
import type { ChatMessage } from '../text/chat-template.js';
import { ChatFormat } from './chat-format.js';
import type { Generation, Piece } from './generation.js';
import { metricsOf } from './metrics.js';
import { Model } from './model.js';
import type { GenerateOptions } from './session.js';

const end = 2;

interface Setup {
  readonly model: Model;
  readonly executable: FakeExecutable;
}

function setUp({
  context = 200,
  slots = 1,
  ...options
}: FakeOptions & { context?: number; slots?: number } = {}): Setup {
  const executable = new FakeExecutable(options);
  const config = { ...defined(findPreset('tinystories-15m'), 'preset').config, vocab: 300 };
  const model = new Model({
    name: 'fake',
    config,
    tokenizer: byteTokenizer,
    chat: new ChatFormat({}),
    schedule: 'looped',
    backend: 'fake',
    quant: 'f32',
    kv: 'f32',
    limits: { rows: 16, samples: slots, slots, context },
    stopTokens: [end],
    defaultSampling: {},
    executable,
  });
  return { model, executable };
}

/** A model that says `answer` after the prompt `prompt`, and then ends the text. */
function answering(prompt: string, answer: string): FakeOptions {
  const start = 1 + tokensOf(prompt).length;
  return { next: (context) => tokensOf(answer)[context.length - start] ?? end };
}

async function collect(generation: Generation): Promise<Piece[]> {
  const pieces: Piece[] = [];
  for await (const piece of generation) pieces.push(piece);
  return pieces;
}

const textOf = (pieces: readonly Piece[]): string => pieces.map(({ text }) => text).join('');

describe('Session', () => {
  it('streams the text of an answer and tells how it went', async () => {
    const { model } = setUp(answering('Once', ' upon a time'));
    const generation = model.session().generate('Once', { seed: 7 });
    expect(textOf(await collect(generation))).toBe(' upon a time');
    const result = await generation.result;
    expect(result).toMatchObject({ text: ' upon a time', finishReason: 'stop', contextFull: false, seed: 7 });
    expect(result.promptTokens).toEqual([1, ...tokensOf('Once')]);
    expect(result.tokens).toEqual([...tokensOf(' upon a time'), end]);
    expect(result.counters.prefill).toMatchObject({ steps: 1, tokens: 1, kernelCalls: 4 });
    expect(metricsOf(result)).toMatchObject({ kernelCalls: 4 * 13, kernelCallsPerToken: 4, bytesPerToken: 1000 });
  });

  it('cuts the text before a stop string that lies across tokens, and never shows a part of it', async () => {
    const { model } = setUp(answering('Q', 'one two STOP three'));
    const generation = model.session().generate('Q', { stop: ['STOP'] });
    const pieces = await collect(generation);
    expect(textOf(pieces)).toBe('one two ');
    const { tokens, finishReason, text } = await generation.result;
    expect([text, finishReason]).toEqual(['one two ', 'stop']);
    expect(tokens).toEqual(tokensOf('one two STOP'));
    expect(pieces.flatMap((piece) => piece.tokens)).toEqual(tokens);
  });

  it('gives out what a stop string might have been, when the text ends', async () => {
    const { model } = setUp(answering('Q', 'half a STO'));
    expect(textOf(await collect(model.session().generate('Q', { stop: ['STOP'] })))).toBe('half a STO');
  });

  it('never cuts a character in two', async () => {
    const { model } = setUp(answering('Q', 'ein Stück 🦊 läuft'));
    const pieces = await collect(model.session().generate('Q'));
    expect(textOf(pieces)).toBe('ein Stück 🦊 läuft');
    expect(pieces.filter(({ text }) => text.includes('\ufffd'))).toEqual([]);
  });

  it('marks a character that the token limit cut', async () => {
    const { model } = setUp(answering('Q', 'ab🦊'));
    const { text, finishReason } = await model.session().generate('Q', { maxTokens: 4 }).result;
    expect([text, finishReason]).toEqual(['ab\ufffd', 'length']);
  });

  it('goes past the end of text where it is told to', async () => {
    const { model } = setUp(answering('Q', 'ab'));
    const { tokens, finishReason } = await model.session().generate('Q', { ignoreEos: true, maxTokens: 5 }).result;
    expect(tokens).toEqual([...tokensOf('ab'), end, end, end]);
    expect(finishReason).toBe('length');
  });

  it('fills the context and says so', async () => {
    const { model } = setUp({ context: 40 });
    const session = model.session();
    const prompt = tokensOf('x'.repeat(30));
    const result = await session.generate(prompt).result;
    // The last token made needs no room of its own.
    expect(result.tokens).toEqual(continuation(prompt, 11));
    expect(result).toMatchObject({ finishReason: 'length', contextFull: true });
    expect(await session.generate(prompt, { maxTokens: 3 }).result).toMatchObject({ contextFull: false });
    expect((await session.generate(tokensOf('x'.repeat(40))).result).tokens).toHaveLength(1);
  });

  it('refuses a prompt beyond the context and names the limit', async () => {
    const { model, executable } = setUp({ context: 40 });
    const generation = model.session().generate(tokensOf('x'.repeat(41)));
    await expect(generation.result).rejects.toThrow(ContextOverflowError);
    await expect(collect(generation)).rejects.toThrow(/41 tokens.*holds 40/);
    expect(executable.steps).toEqual([]);
  });

  it('computes only what a prompt adds to the one before', async () => {
    const { model, executable } = setUp();
    const session = model.session();
    const first = await session.generate('The first turn.', { maxTokens: 10 }).result;
    const before = [...first.promptTokens, ...first.tokens];
    const rowsBefore = executable.steps.length;
    const second = await session.generate([...before, ...tokensOf('and more')], { maxTokens: 5 }).result;
    // The last token of the first answer was never fed.
    expect(second.cachedTokens).toBe(before.length - 1);
    expect([...executable.steps[rowsBefore]!.tokens]).toEqual([before.at(-1), ...tokensOf('and more')]);
    expect(second.tokens).toEqual(continuation([...before, ...tokensOf('and more')], 5));
  });

  it('goes back to where a prompt differs, and computes at least one row', async () => {
    const { model } = setUp();
    const session = model.session();
    await session.generate(tokensOf('abcdefgh'), { maxTokens: 20 }).result;
    const changed = await session.generate(tokensOf('abcdXfgh'), { maxTokens: 6 }).result;
    expect(changed.cachedTokens).toBe(4);
    expect(changed.tokens).toEqual(continuation(tokensOf('abcdXfgh'), 6));
    const again = await session.generate(tokensOf('abcdXfgh'), { maxTokens: 6 }).result;
    expect(again.cachedTokens).toBe(7);
    expect(again.tokens).toEqual(changed.tokens);
    const shorter = await session.generate(tokensOf('ab'), { maxTokens: 6 }).result;
    expect(shorter.tokens).toEqual(continuation(tokensOf('ab'), 6));
  });

  it('keeps a usable cache after a stop string and after an abort', async () => {
    let callsLeft = Infinity;
    const controller = new AbortController();
    const { model } = setUp({
      afterToken: () => {
        if (--callsLeft === 0) controller.abort();
      },
    });
    const session = model.session();
    const first = await session.generate(tokensOf('abc'), { maxTokens: 12 }).result;
    const stop = byteTokenizer.decode(first.tokens.slice(4, 5));
    const stopped = await session.generate(tokensOf('abc'), { stop: [stop] }).result;
    callsLeft = 8;
    const aborted = await session.generate(tokensOf('abc'), { signal: controller.signal }).result;
    expect(aborted.finishReason).toBe('abort');
    const prompt = [...tokensOf('abc'), ...aborted.tokens, 99];
    const next = await session.generate(prompt, { maxTokens: 5 }).result;
    expect(next.tokens).toEqual(continuation(prompt, 5));
    expect(stopped.tokens.length).toBeLessThanOrEqual(5);
    expect(aborted.tokens).toHaveLength(8);
    expect(next.cachedTokens).toBe(3 + 8 - 1);
  });

  it('stops when the reader leaves, and is free again', async () => {
    const { model, executable } = setUp();
    const session = model.session();
    const generation = session.generate(tokensOf('abc'));
    for await (const { tokens } of generation) if (tokens.length > 0) break;
    // Without waiting for anything else.
    expect((await session.generate(tokensOf('abc'), { maxTokens: 2 }).result).tokens).toHaveLength(2);
    const { finishReason, tokens } = await generation.result;
    expect(finishReason).toBe('abort');
    expect(tokens.length).toBeLessThan(60);
    expect(executable.steps.length).toBeGreaterThan(0);
  });

  it('gives its pieces to one reader at a time', async () => {
    const session = setUp().model.session();
    const generation = session.generate(tokensOf('abc'), { maxTokens: 30 });
    const [first, second] = await Promise.allSettled([collect(generation), collect(generation)]);
    expect(second).toMatchObject({ status: 'rejected', reason: expect.any(UsageError) as UsageError });
    expect(second).toMatchObject({ reason: { message: expect.stringContaining('wait for its result') as string } });
    const { text, finishReason } = await generation.result;
    expect([first.status === 'fulfilled' && textOf(first.value), finishReason]).toEqual([text, 'length']);
    // What is over may be iterated over again; there is nothing left.
    expect(await collect(generation)).toEqual([]);
  });

  it('starts afresh after the backend failed', async () => {
    let broken = false;
    const { model } = setUp({
      before: () => {
        if (broken) throw new Error('device lost');
      },
    });
    const session = model.session();
    await session.generate(tokensOf('abcdef'), { maxTokens: 3 }).result;
    broken = true;
    await expect(session.generate(tokensOf('abcdef'), { maxTokens: 3 }).result).rejects.toThrow('device lost');
    broken = false;
    const after = await session.generate(tokensOf('abcdef'), { maxTokens: 3 }).result;
    expect(after.cachedTokens).toBe(0);
    expect(after.tokens).toEqual(continuation(tokensOf('abcdef'), 3));
  });

  it('refuses what makes no sense before anything runs', () => {
    const { model } = setUp();
    const session = model.session();
    expect(() => session.generate('x', { maxTokens: 0 })).toThrow(UsageError);
    expect(() => session.generate('x', { temperature: NaN })).toThrow(/temperature is NaN/);
    expect(() => session.generate('x', { topK: 1.5 })).toThrow(/topK is 1.5, must be a whole number/);
    expect(() => session.generate('x', { stop: [''] })).toThrow(UsageError);
    session.generate('x');
    expect(() => session.generate('x')).toThrow(/already making text/);
  });

  it('refuses prompts that are empty, of foreign tokens, or without a template', async () => {
    const { model } = setUp();
    const session = model.session();
    await expect(session.generate([]).result).rejects.toThrow(/prompt is empty/);
    await expect(session.generate([300]).result).rejects.toThrow(/token 300/);
    for (const wrong of [undefined, null, '5', 1.5, -1]) {
      await expect(session.generate([1, wrong as number, 2]).result).rejects.toThrow(UsageError);
    }
    await expect(session.generate([undefined as unknown as number]).result).rejects.toThrow(
      /token undefined is not one of the model, which has 300; give whole numbers from 0 to 299/,
    );
    const messages = [{ role: 'user', content: 'hi' }] as const;
    await expect(session.generate({ messages }).result).rejects.toThrow(TemplateError);
  });

  it('hands out as many sessions as there are slots, and says so when there are none', async () => {
    const { model, executable } = setUp({ slots: 2 });
    const first = model.session();
    const second = model.session();
    expect(() => model.session()).toThrow(/all 2 slots/);
    const [a, b] = [
      first.generate(tokensOf('abc'), { maxTokens: 20 }),
      second.generate(tokensOf('xyz'), { maxTokens: 9 }),
    ];
    expect((await a.result).tokens).toEqual(continuation(tokensOf('abc'), 20));
    expect((await b.result).tokens).toEqual(continuation(tokensOf('xyz'), 9));
    expect(executable.steps.some((step) => step.index.length === 2)).toBe(true);
    await first.close();
    await first.close();
    const third = model.session();
    expect(() => model.session()).toThrow(/all 2 slots/);
    expect(() => first.generate('x')).toThrow(/closed/);
    const { tokens, cachedTokens } = await third.generate(tokensOf('abc'), { maxTokens: 4 }).result;
    expect(cachedTokens).toBe(0);
    expect(tokens).toEqual(continuation(tokensOf('abc'), 4));
  });

  it('stops everything when the model is closed', async () => {
    const { model, executable } = setUp();
    const session = model.session();
    const generation = session.generate(tokensOf('abc'));
    await model.close();
    expect((await generation.result).finishReason).toBe('abort');
    expect(executable.closed).toBe(true);
    expect(() => model.session()).toThrow(/closed/);
    expect(() => session.generate('x')).toThrow('the model of this session is closed');
  });

  it.each<[string, object | null]>([
    ['the options are null, must be an object', null],
    ['topP is null, must be a number from 0 to 1', { topP: null }],
    ["temperature is '0.8', must be a number from 0 to 1000", { temperature: '0.8' }],
    ['seed is 5n, must be a whole number', { seed: 5n }],
    ["maxTokens is '5', must be a whole number from 1", { maxTokens: '5' }],
    ['maxTokens is null', { maxTokens: null }],
    ["stop is 'abc', must be a list of texts", { stop: 'abc' }],
    ["stop is [ 'a', undefined ]", { stop: ['a', undefined] }],
    ['bias is { ', { bias: { 5: 1 } }],
    ['bias is [ 5 ], must be a list of [token id, number from -100 to 100]', { bias: [5] }],
    ["bias is [ [ 5, '1' ] ]", { bias: [[5, '1']] }],
    ['logprobs is { top: -1 }, must be { top, prompt? }', { logprobs: { top: -1 } }],
    ['logprobs is true', { logprobs: true }],
    ['logprobs is { top: 1, prompt: 1 }', { logprobs: { top: 1, prompt: 1 } }],
    ["ignoreEos is 'no', must be true or false", { ignoreEos: 'no' }],
    ['atStart is 0, must be true or false', { atStart: 0 }],
    ['textTokens is 7, must be a list of token ids', { textTokens: 7 }],
    ["grammar is '{}', must come from compileGrammar", { grammar: '{}' }],
    ['signal is {}, must be an AbortSignal', { signal: {} }],
  ])('refuses options: %s', (message, options) => {
    const session = setUp().model.session();
    const generate = (): Generation => session.generate('x', options as GenerateOptions);
    expect(generate).toThrow(UsageError);
    expect(generate).toThrow(message);
  });

  it.each([[undefined], [null], [3], [{}], [{ messages: 'hi' }]])('refuses the prompt %j', (prompt) => {
    const { model } = setUp();
    expect(() => model.session().generate(prompt as string)).toThrow(/must be a text, a list of token ids/);
  });

  it('refuses messages that are none', () => {
    const messages = [{ role: 'user', content: 'hi' }, undefined] as ChatMessage[];
    expect(() => setUp().model.session().generate({ messages })).toThrow(
      'message 1 is undefined, must be { role, content }',
    );
  });

  it.each<[unknown, string]>([
    [undefined, 'the messages are undefined, must be a list'],
    ['hi', "the messages are 'hi', must be a list"],
    [[null], 'message 0 is null, must be { role, content }'],
  ])('refuses to show the model %j as messages', async (messages, error) => {
    const shown = setUp().model.applyChatTemplate(messages as ChatMessage[]);
    await expect(shown).rejects.toThrow(UsageError);
    await expect(shown).rejects.toThrow(error);
  });

  it('passes seeds on in two halves, and makes a random one where none is given', async () => {
    const { model, executable } = setUp();
    const session = model.session();
    await session.generate('x', { maxTokens: 1, seed: 2 ** 40 + 5, temperature: 1 }).result;
    expect(executable.steps[0]!.sampling[0]).toMatchObject({ seed: [5, 256], temperature: 1, topP: 1, remaining: 1 });
    const seeds = new Set<number>();
    for (let i = 0; i < 4; i++) seeds.add((await session.generate('x', { maxTokens: 1 }).result).seed);
    expect(seeds.size).toBe(4);
  });
});
