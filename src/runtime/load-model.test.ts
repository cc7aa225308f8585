import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeTinyModel, type TinyModel } from '../../tests/support/tiny-model.js';
import { schedules } from '../ir/program.js';
import { AbortedError, CheckpointError, UsageError } from '../util/errors.js';
import { loadModel, outlineModel, type LoadOptions } from './load-model.js';
import type { Model } from './model.js';
import type { Prompt } from './session.js';

/** Of callers without types. */
const wrongTypes = (
  [
    [{ backend: 'gpu' }, /backend is 'gpu', must be one of auto, cpu, cuda, reference/],
    [{ schedule: 'fast' }, /schedule is 'fast', must be one of operator, layer, looped, response/],
    [{ quant: 'int8' }, /does not run int8 weights; choose one of f32/],
    [{ quant: 8 }, /quant is 8, must be a text/],
    [{ kv: 'fp8' }, /keeps no KV cache in fp8/],
    [{ kv: null }, /kv is null, must be a text/],
    [{ compress: 'no' }, /compress is 'no', must be true or false/],
    [{ pin: 1 }, /pin is 1, must be true or false/],
    [{ weightsMemory: true }, /weightsMemory is true, must be one of auto, own, mapped/],
    [{ threads: '2' }, /threads is '2', must be a whole number/],
    [{ context: '64' }, /context is '64', must be a whole number/],
    [{ slots: null }, /slots is null, must be a whole number/],
    [{ rows: {} }, /rows is {}, must be a whole number/],
    [{ cacheDir: 5 }, /cacheDir is 5, must be a text/],
    [{ onProgress: 'x' }, /onProgress is 'x', must be a function/],
    [{ onNotice: {} }, /onNotice is {}, must be a function/],
    [{ signal: new AbortController() }, /signal is AbortController .*, must be an AbortSignal/],
  ] satisfies [object, RegExp][]
).map(([options, message]): [LoadOptions, RegExp] => [options as LoadOptions, message]);

describe('loadModel', () => {
  let tiny: TinyModel;
  beforeAll(async () => {
    tiny = await writeTinyModel({ chat: true });
  });
  afterAll(() => tiny.remove());

  const load = (options: LoadOptions = {}): Promise<Model> =>
    loadModel(tiny.path, { backend: 'reference', context: 64, ...options });

  /** Greedy tokens of a fresh model. */
  async function tokensOf(prompt: Prompt, options: LoadOptions = {}): Promise<readonly number[]> {
    const model = await load(options);
    try {
      return (await model.session().generate(prompt, { maxTokens: 12, ignoreEos: true }).result).tokens;
    } finally {
      await model.close();
    }
  }

  it('says what it loaded', async () => {
    const model = await load({ slots: 2, rows: 1 });
    expect(model).toMatchObject({ name: 'tiny', schedule: 'response', backend: 'reference', quant: 'f32', threads: 1 });
    // A step must hold a row of every session.
    expect(model.limits).toEqual({ rows: 2, samples: 2, slots: 2, context: 64 });
    expect(model.stopTokens).toEqual([299]);
    expect(model.defaultSampling).toEqual({ temperature: 0 });
    expect(model.counters.kernelCalls).toBe(0);
    await model.close();
  });

  it('keeps the KV cache in a format that the backend has and the heads fit', async () => {
    const kvOf = async (kv?: LoadOptions['kv']): Promise<string> => {
      const model = await load(kv === undefined ? {} : { kv });
      await model.session().generate('a prompt', { maxTokens: 3 }).result;
      await model.close();
      return model.kv;
    };
    expect(await kvOf()).toBe('f32');
    expect(await kvOf('bf16')).toBe('bf16');
    await expect(kvOf('q4_0')).rejects.toThrow(/reference backend keeps no KV cache in q4_0; choose one of/);
    await expect(kvOf('q8_0')).rejects.toThrow(/blocks of 32, and the heads of tiny are \d+ wide; choose f32 or bf16/);
  });

  it('gives the same tokens under every schedule and for every chunk size', async () => {
    const prompt = 'a prompt of some length';
    const expected = await tokensOf(prompt, { schedule: 'operator', rows: 64 });
    expect(new Set(expected).size).toBeGreaterThan(2);
    for (const schedule of schedules) expect(await tokensOf(prompt, { schedule, rows: 5 })).toEqual(expected);
  });

  it('lets sessions run side by side without touching each other', async () => {
    const prompts = ['first', 'the second, which is longer', 'third'];
    const alone = await Promise.all(prompts.map((prompt) => tokensOf(prompt)));
    const model = await load({ slots: 3, rows: 7 });
    const together = prompts.map(
      (prompt) => model.session().generate(prompt, { maxTokens: 12, ignoreEos: true }).result,
    );
    expect((await Promise.all(together)).map(({ tokens }) => tokens)).toEqual(alone);
    await model.close();
  });

  it('answers messages in the format of the model', async () => {
    const model = await load();
    const messages = [{ role: 'user', content: 'hi' }] as const;
    const tokens = await model.applyChatTemplate(messages);
    expect(model.tokenizer.decode(tokens)).toBe('[user: hi][assistant: ');
    const { promptTokens } = await model.session().generate({ messages }, { maxTokens: 1 }).result;
    expect(promptTokens).toEqual(tokens);
    await model.close();
  });

  it.each<[LoadOptions, RegExp]>([
    [{ context: 0 }, /context is 0, must be a whole number from 1 to 128/],
    [{ context: 129 }, /context is 129/],
    [{ slots: 1.5 }, /slots is 1.5/],
    [{ rows: 0 }, /rows is 0/],
    [{ threads: 0 }, /threads is 0, must be a whole number from 1 to 256/],
    [{ quant: 'i32' }, /does not run i32 weights; choose one of f32/],
    ...wrongTypes,
  ])('refuses %j', async (options, message) => {
    await expect(load(options)).rejects.toThrow(UsageError);
    await expect(load(options)).rejects.toThrow(message);
  });

  it('says that more threads than processors are of no use', async () => {
    const notices: string[] = [];
    const model = await load({ threads: 3, onNotice: (line) => notices.push(line) });
    expect(notices).toEqual(['the reference backend has no use for 3 threads here, only for 1']);
    expect(model.threads).toBe(1);
    await model.close();
  });

  it('stops where it is told to', async () => {
    await expect(load({ signal: AbortSignal.abort() })).rejects.toThrow(AbortedError);
  });

  it('says what a model can be', async () => {
    await expect(loadModel('no-such-model')).rejects.toThrow(CheckpointError);
    for (const spec of [undefined, null, 5, {}]) {
      await expect(loadModel(spec as string)).rejects.toThrow(UsageError);
      await expect(outlineModel(spec as string)).rejects.toThrow(/name of the model is .*; give `demo`/);
    }
    for (const options of [null, 'cpu']) {
      await expect(loadModel(tiny.path, options as LoadOptions)).rejects.toThrow(UsageError);
    }
  });
});
