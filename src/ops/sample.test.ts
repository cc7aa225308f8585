import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluate, f32, i32 } from '../../tests/support/operators.js';
import type { Operator } from '../ir/program.js';
import { uniform } from '../util/prng.js';
import { makeOperator as op } from './make.js';
import { maxBiasedTokens } from './sample.js';

interface Settings {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly penalty?: number;
  readonly presence?: number;
  readonly frequency?: number;
  readonly madeFrom?: number;
}

const operator = op(
  'sample',
  {
    logits: 'logits',
    index: 'index',
    slots: 'slots',
    positions: 'positions',
    history: 'history',
    settings: 'settings',
    seeds: 'seeds',
  },
  { token: 'token' },
);

/** The token for one sample of slot 0 whose sequence is `history`. */
function choose(logits: number[], settings: Settings, seed = 0, history: number[] = [0]): number {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = settings;
  const { penalty = 1, presence = 0, frequency = 0, madeFrom = 0 } = settings;
  return evaluate(operator, {
    logits: f32([logits]),
    index: i32([0]),
    slots: i32([0]),
    positions: i32([history.length - 1]),
    // What comes after the position belongs to an older sequence.
    history: i32([[...history, 0, 1, 2, 3]]),
    settings: f32([[temperature, topK, topP, minP, penalty, presence, frequency, madeFrom, 0, 0]]),
    seeds: i32([[seed, 5]]),
  })['token']![0]!;
}

/** Which tokens come up over many seeds. */
function support(logits: number[], settings: Settings, history?: number[]): number[] {
  const seen = new Set(Array.from({ length: 300 }, (_, seed) => choose(logits, settings, seed, history)));
  return [...seen].sort((a, b) => a - b);
}

describe('greedy sampling', () => {
  it('takes the largest logit, the smaller id of equals, and never NaN', () => {
    expect(choose([1, 5, 5, 2], { temperature: 0 })).toBe(1);
    expect(choose([NaN, -3, -2, NaN], { temperature: 0 })).toBe(2);
    expect(choose([NaN, NaN], { temperature: 0 })).toBe(0);
    expect(choose([NaN, -1, NaN], {})).toBe(1);
  });

  it('penalizes what the sequence holds, once, and only up to its position', () => {
    expect(choose([4, 3.9, 0], { temperature: 0, penalty: 1.1 }, 0, [0])).toBe(1);
    // Token 0 twice is penalized like once: 4 / 1.1 = 3.64 stays ahead of 3.5; the 1 beyond the position is not seen.
    expect(choose([4, 3.5, 0], { temperature: 0, penalty: 1.1 }, 0, [0, 0])).toBe(0);
    // Negative logits are multiplied: -1 becomes -2.
    expect(choose([-1, -1.5], { temperature: 0, penalty: 2 }, 0, [0])).toBe(1);
  });

  it('takes the penalties of what was made off, once for presence and every time for frequency', () => {
    const greedy = { temperature: 0, madeFrom: 2 };
    // Token 0 twice in the prompt, and twice made; token 1 made once.
    const history = [0, 0, 0, 1, 0];
    expect(choose([4, 3, 1.9], { ...greedy, presence: 2 }, 0, history)).toBe(0);
    expect(choose([4, 3, 2.1], { ...greedy, presence: 2 }, 0, history)).toBe(2);
    // 4 - 2 * 0.7 = 2.6, 3 - 0.7 = 2.3
    expect(choose([4, 3, 2.5], { ...greedy, frequency: 0.7 }, 0, history)).toBe(0);
    expect(choose([4, 3, 2.7], { ...greedy, frequency: 0.7 }, 0, history)).toBe(2);
    expect(choose([4, 3.5, 2], { ...greedy, frequency: 0.7 }, 0, history)).toBe(1);
    // Of the prompt nothing counts, and a negative penalty is a reward.
    expect(choose([4, 3], { temperature: 0, madeFrom: 5, presence: 9, frequency: 9 }, 0, history)).toBe(0);
    expect(choose([3, 1, 3.5], { ...greedy, presence: -1 }, 0, history)).toBe(0);
  });
});

describe('biases and masks', () => {
  const edited = (
    logits: number[],
    settings: number[],
    { bias = [], allowed }: { bias?: [number, number][]; allowed?: number[] },
  ): number => {
    const vocab = logits.length;
    const mask = Array<number>(Math.ceil(vocab / 32)).fill(0);
    for (const token of allowed ?? []) mask[token >> 5]! |= 1 << (token & 31);
    const row = (at: 0 | 1, rest: number): number[] =>
      Array.from({ length: maxBiasedTokens }, (_, i) => bias[i]?.[at] ?? rest);
    const flags = [...settings, 0, bias.length, allowed === undefined ? 0 : 1];
    return evaluate(
      { ...operator, reads: { ...operator.reads, biased: 'biased', biases: 'biases', allowed: 'allowed' } } as Operator,
      {
        logits: f32([logits]),
        ...{ index: i32([0]), slots: i32([0]), positions: i32([0]), history: i32([[1]]), seeds: i32([[1, 2]]) },
        settings: f32([flags]),
        ...{ biased: i32([row(0, 0)]), biases: f32([row(1, 50)]), allowed: i32([mask]) },
      },
    )['token']![0]!;
  };
  const greedy = [0, 0, 1, 0, 1, 0, 0];

  it('adds a bias before anything else', () => {
    expect(edited([1, 2, 3], greedy, {})).toBe(2);
    expect(edited([1, 2, 3], greedy, { bias: [[0, 2.5]] })).toBe(0);
    expect(edited([1, 2, 3], greedy, { bias: [[2, -100]] })).toBe(1);
    // Token 1 is in the history: its biased logit, 4, is halved by the penalty. Unbiased, 1 would stay below 1.9.
    expect(edited([1.9, 1, 0], [0, 0, 1, 0, 2, 0, 0], { bias: [[1, 3]] })).toBe(1);
    expect(edited([2.1, 1, 0], [0, 0, 1, 0, 2, 0, 0], { bias: [[1, 3]] })).toBe(0);
  });

  it('chooses only what is allowed, in every word of the mask', () => {
    const logits = Array.from({ length: 70 }, (_, id) => id);
    for (const allowed of [[0], [31], [32], [63], [64], [69], [3, 40, 5]]) {
      expect(edited(logits, greedy, { allowed })).toBe(Math.max(...allowed));
      expect(allowed).toContain(edited(logits, [1.5, 0, 1, 0, 1, 0, 0], { allowed }));
    }
    expect(
      edited(logits, greedy, {
        allowed: [5, 7],
        bias: [
          [5, 10],
          [9, 100],
        ],
      }),
    ).toBe(5);
  });
});

describe('sampling', () => {
  it('keeps the topK largest, smaller ids first among equals', () => {
    expect(support([1, 1.2, 1, 1.1], { topK: 3 })).toEqual([0, 1, 3]);
    expect(support([1, 1, 1, 1], { topK: 2 })).toEqual([0, 1]);
    expect(support([1, 1, 1, 1], { topK: 9 })).toEqual([0, 1, 2, 3]);
  });

  it('keeps the shortest prefix that reaches topP, at least one', () => {
    const logits = [0.1, 0.5, 0.4].map(Math.log);
    expect(support(logits, { topP: 0.45 })).toEqual([1]);
    expect(support(logits, { topP: 0.8 })).toEqual([1, 2]);
    expect(support(logits, { topP: 0.95 })).toEqual([0, 1, 2]);
    expect(support(logits, { topP: 0 })).toEqual([1]);
    // Half of the weight is reached exactly.
    expect(support([1, 1], { topP: 0.5 })).toEqual([0]);
  });

  it('keeps what has at least minP of the best probability', () => {
    const logits = [0.1, 0.5, 0.4].map(Math.log);
    expect(support(logits, { minP: 0.5 })).toEqual([1, 2]);
    expect(support(logits, { minP: 0.9 })).toEqual([1]);
  });

  it('follows the probabilities at the temperature', () => {
    const logits = [0, 1, 2];
    for (const temperature of [0.5, 1, 2]) {
      const weights = logits.map((logit) => Math.exp(logit / temperature));
      const total = weights.reduce((a, b) => a + b);
      const counts = [0, 0, 0];
      const draws = 3000;
      for (let seed = 0; seed < draws; seed++) counts[choose(logits, { temperature }, seed)]!++;
      counts.forEach((count, id) => {
        const p = weights[id]! / total;
        // Four standard deviations.
        expect(Math.abs(count - draws * p)).toBeLessThan(4 * Math.sqrt(draws * p * (1 - p)));
      });
    }
  });

  it('is the inverse of the cumulative distribution at the draw of its position', () => {
    const arbitraryLogits = fc.array(fc.float({ min: -4, max: 4, noNaN: true }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(arbitraryLogits, fc.nat(), fc.integer({ min: 1, max: 5 }), (logits, seed, length) => {
        const u = uniform(length - 1, [seed, 5]);
        const exact = logits.map((logit) => Math.exp(Math.fround(logit)));
        const target = u * exact.reduce((a, b) => a + b);
        const token = choose(logits, {}, seed, Array<number>(length).fill(0));
        const below = exact.slice(0, token).reduce((a, b) => a + b, 0);
        expect(below).toBeLessThanOrEqual(target * (1 + 1e-9) + 1e-12);
        expect(below + exact[token]!).toBeGreaterThan(target * (1 - 1e-9));
      }),
    );
  });
});

it('an idle row gives token 0', () => {
  const token = evaluate(operator, {
    logits: f32([[0, 9]]),
    index: i32([1]),
    slots: i32([0, 0]),
    positions: i32([0, -1]),
    history: i32([[1, 1]]),
    settings: f32([[0, 0, 1, 0, 1, 0, 0, 0, 0, 0]]),
    seeds: i32([[0, 0]]),
  });
  expect(token['token']).toEqual([0]);
});
