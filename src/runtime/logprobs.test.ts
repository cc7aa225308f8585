import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeTinyModel, type TinyModel } from '../../tests/support/tiny-model.js';
import { loadModel } from './load-model.js';
import { tokenLogprob } from './logprobs.js';
import type { Model } from './model.js';

describe('tokenLogprob', () => {
  it('is the logarithm of the softmax, and sorts what is most likely', () => {
    const logits = fc.array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(logits, fc.nat(), fc.integer({ min: 0, max: 50 }), (values, pick, top) => {
        const token = pick % values.length;
        const total = values.reduce((sum, value) => sum + Math.exp(value), 0);
        const exact = values.map((value) => Math.log(Math.exp(value) / total));
        const got = tokenLogprob(Float32Array.from(values), token, top);
        expect(got.logprob).toBeCloseTo(exact[token]!, 8);
        const sorted = [...exact.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, top);
        expect(got.top.map(({ token: id }) => id)).toEqual(sorted);
        for (const { token: id, logprob } of got.top) expect(logprob).toBeCloseTo(exact[id]!, 8);
      }),
    );
  });

  it('holds for large logits, and knows what is impossible', () => {
    expect(tokenLogprob(Float32Array.of(1000, 1000, -1000), 1, 1)).toEqual({
      token: 1,
      logprob: -Math.LN2,
      top: [{ token: 0, logprob: -Math.LN2 }],
    });
    expect(tokenLogprob(Float32Array.of(0, -Infinity, NaN), 1, 3).logprob).toBe(-Infinity);
    expect(tokenLogprob(Float32Array.of(0, -Infinity, NaN), 2, 3)).toMatchObject({
      logprob: -Infinity,
      top: [{ token: 0, logprob: 0 }, {}],
    });
  });
});

describe('a generation with logprobs', () => {
  let tiny: TinyModel;
  let model: Model;
  beforeAll(async () => {
    tiny = await writeTinyModel();
    model = await loadModel(tiny.path, { backend: 'reference', slots: 3 });
  }, 60_000);
  afterAll(async () => {
    await model.close();
    tiny.remove();
  });

  it('gives what was made the likelihood that it has as a prompt', async () => {
    const session = model.session();
    const options = { maxTokens: 12, seed: 3, temperature: 1.2, ignoreEos: true };
    const plain = await session.generate('Once', options).result;
    const made = await session.generate('Once', { ...options, logprobs: { top: 2 } }).result;
    expect(made.tokens).toEqual(plain.tokens);
    expect(made.logprobs!.map(({ token }) => token)).toEqual(made.tokens);
    expect(made.promptLogprobs).toBeUndefined();
    const all = [...made.promptTokens, ...made.tokens];
    const again = await session.generate(all, { maxTokens: 1, logprobs: { top: 2, prompt: true } }).result;
    expect(again.cachedTokens).toBe(0);
    expect(again.promptLogprobs!.map(({ token }) => token)).toEqual(all.slice(1));
    expect(again.promptLogprobs!.slice(-12)).toEqual(made.logprobs);
    await session.close();
  });

  it('gives probabilities that sum to one, and greedy choices the best of them', async () => {
    const session = model.session();
    const generation = session.generate('Once', {
      maxTokens: 5,
      ignoreEos: true,
      logprobs: { top: model.config.vocab },
    });
    let tokens = 0;
    for await (const piece of generation) {
      expect(piece.logprobs!.map(({ token }) => token)).toEqual(piece.tokens);
      tokens += piece.tokens.length;
      for (const { token, logprob, top } of piece.logprobs!) {
        expect(top[0]).toEqual({ token, logprob });
        expect(top.reduce((sum, other) => sum + Math.exp(other.logprob), 0)).toBeCloseTo(1, 9);
      }
    }
    expect(tokens).toBe(5);
    await session.close();
  });
});
