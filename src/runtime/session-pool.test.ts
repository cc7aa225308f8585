import { describe, expect, it } from 'vitest';
import { byteTokenizer } from '../../tests/support/byte-tokenizer.js';
import { continuation, FakeExecutable, type FakeOptions } from '../../tests/support/fake-executable.js';
import { findPreset } from '../models/presets.js';
import { defined } from '../util/assert.js';
import { AbortedError, OverloadedError, UsageError } from '../util/errors.js';
import { ChatFormat } from './chat-format.js';
import type { Generation } from './generation.js';
import { Model } from './model.js';
import { SessionPool, type PoolRequest } from './session-pool.js';

const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);

function setUp({ slots = 2, queueLimit = 8, ...options }: FakeOptions & { slots?: number; queueLimit?: number } = {}) {
  const executable = new FakeExecutable(options);
  const model = new Model({
    name: 'fake',
    config: { ...defined(findPreset('tinystories-15m'), 'preset').config, vocab: 300 },
    tokenizer: byteTokenizer,
    chat: new ChatFormat({}),
    schedule: 'looped',
    backend: 'fake',
    quant: 'f32',
    kv: 'f32',
    limits: { rows: 16, samples: slots, slots, context: 200 },
    stopTokens: [],
    defaultSampling: {},
    executable,
  });
  return { model, executable, pool: new SessionPool(model, { queueLimit }) };
}

const ask = (prompt: readonly number[], maxTokens = 4, more: Partial<PoolRequest> = {}): PoolRequest => ({
  prompt,
  options: { maxTokens },
  ...more,
});

const tokensOf = async (generation: Generation): Promise<readonly number[]> => (await generation.result).tokens;

describe('SessionPool', () => {
  it('runs more requests than there are slots, each as if it were alone', async () => {
    const { pool } = setUp();
    const prompts = range(0, 8).map((i) => range(20 + i, 5 + i));
    const generations = prompts.flatMap((prompt) => pool.generate([ask(prompt, 6)]));
    expect([pool.running, pool.waiting]).toEqual([2, 6]);
    const made = await Promise.all(generations.map(tokensOf));
    expect(made).toEqual(prompts.map((prompt) => continuation(prompt, 6)));
    expect([pool.running, pool.waiting]).toEqual([0, 0]);
  });

  it('gives a prompt to the session that holds most of it, and overwrites the one used longest ago', async () => {
    const { pool, executable } = setUp({ slots: 3 });
    const [a, b, c] = [range(20, 12), range(60, 12), range(100, 12)];
    const cached = async (prompt: readonly number[]): Promise<number> =>
      (await pool.generate([ask(prompt)])[0]!.result).cachedTokens;
    const slotOfLast = (): number => executable.steps.at(-1)!.slots[0]!;
    const slots: number[] = [];
    for (const prompt of [a, b, c]) {
      expect(await cached(prompt)).toBe(0);
      slots.push(slotOfLast());
    }
    expect(new Set(slots).size).toBe(3);
    // What an answer left behind counts, too; the last token made was not computed with.
    expect(await cached([...c, ...continuation(c, 4), 7])).toBe(12 + 3);
    expect(slotOfLast()).toBe(slots[2]);
    // a was used longest ago, though a new prompt shares its first tokens with b by chance.
    expect(await cached([60, 61, 62, 250, 251])).toBe(0);
    expect(slotOfLast()).toBe(slots[0]);
    expect(await cached([...c, 9])).toBe(12);
    expect(slotOfLast()).toBe(slots[2]);
  });

  it('serves requests in turn, so that one with many texts does not hold up the next', async () => {
    const { pool } = setUp({ slots: 1 });
    const order: string[] = [];
    const many = range(0, 4).map((i) => ask([30 + i], 2, { onStart: () => void order.push(`many ${i}`) }));
    const generations = [
      ...pool.generate(many),
      ...pool.generate([ask([50], 2, { onStart: () => void order.push('one') })]),
    ];
    await Promise.all(generations.map(tokensOf));
    expect(order).toEqual(['many 0', 'many 1', 'one', 'many 2', 'many 3']);
  });

  it('refuses a request as a whole where the queue has no room for it', async () => {
    const { pool } = setUp({ slots: 1, queueLimit: 2 });
    const first = pool.generate([ask([20], 8), ask([21], 8)]);
    expect(() => pool.generate([ask([22]), ask([23])])).toThrow(OverloadedError);
    expect(pool.waiting).toBe(1);
    const last = pool.generate([ask([24], 3)]);
    expect(await Promise.all([...first, ...last].map(tokensOf))).toEqual([
      continuation([20], 8),
      continuation([21], 8),
      continuation([24], 3),
    ]);
  });

  it('says of a request that can never fit that it is too large', async () => {
    const { pool } = setUp({ slots: 2, queueLimit: 3 });
    const texts = (count: number): PoolRequest[] => range(20, count).map((token) => ask([token], 2));
    expect(() => pool.generate(texts(6))).toThrow(UsageError);
    expect(() => pool.generate(texts(6))).toThrow(/for 6 texts, and at most 5 can run or wait; ask for fewer/);
    const most = pool.generate(texts(5));
    // Not now is not never.
    expect(() => pool.generate(texts(1))).toThrow(OverloadedError);
    expect(() => pool.generate(texts(6))).toThrow(UsageError);
    expect(await Promise.all(most.map(tokensOf))).toHaveLength(5);
    const unqueued = setUp({ slots: 2, queueLimit: 0 }).pool;
    expect(() => unqueued.generate(texts(3))).toThrow(UsageError);
    expect(await Promise.all(unqueued.generate(texts(2)).map(tokensOf))).toHaveLength(2);
  });

  it('forgets what is aborted while it waits, and frees the slot of what runs', async () => {
    const { pool } = setUp({ slots: 1 });
    const [running] = pool.generate([ask([20], 150)]);
    const [waiting] = pool.generate([ask([21], 150)]);
    const [last] = pool.generate([ask([22], 3)]);
    waiting!.abort();
    await expect(waiting!.result).rejects.toThrow(AbortedError);
    running!.abort();
    expect((await running!.result).finishReason).toBe('abort');
    expect(await tokensOf(last!)).toEqual(continuation([22], 3));
    const controller = new AbortController();
    controller.abort();
    const [never] = pool.generate([{ prompt: [23], options: { signal: controller.signal } }]);
    await expect(never!.result).rejects.toThrow(AbortedError);
    expect([pool.running, pool.waiting]).toEqual([0, 0]);
  });

  it('gives the slot back after a failure', async () => {
    let broken = true;
    const { pool } = setUp({
      slots: 1,
      before: () => {
        if (broken) throw new Error('bad kernel');
      },
    });
    await expect(pool.generate([ask([20])])[0]!.result).rejects.toThrow('bad kernel');
    broken = false;
    expect(await tokensOf(pool.generate([ask([20])])[0]!)).toEqual(continuation([20], 4));
  });

  it('rejects what waits when it is closed', async () => {
    const { pool, model } = setUp({ slots: 1 });
    const [running] = pool.generate([ask([20], 150)]);
    const [waiting] = pool.generate([ask([21], 150)]);
    pool.close();
    await model.close();
    await expect(waiting!.result).rejects.toThrow(AbortedError);
    expect((await running!.result).finishReason).toBe('abort');
    expect(() => pool.generate([ask([22])])).toThrow(AbortedError);
  });

  it('gives its slots back to the model when it is closed', async () => {
    const { pool, model } = setUp({ slots: 2 });
    const [running] = pool.generate([ask([20], 6)]);
    pool.close();
    await new Promise(setImmediate);
    const session = model.session();
    expect(await tokensOf(running!)).toEqual(continuation([20], 6));
    await session.close();
    await new Promise(setImmediate);
    expect(new SessionPool(model).slots).toBe(2);
  });
});
