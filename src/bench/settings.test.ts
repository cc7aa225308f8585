import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findPreset } from '../models/presets.js';
import { defined } from '../util/assert.js';
import { UsageError } from '../util/errors.js';
import { planRun, threadCounts } from './settings.js';
import { fillerTokens, workloadName } from './workload.js';

const { config } = defined(findPreset('smollm2-135m'), 'preset');
const namesOf = (plan: ReturnType<typeof planRun>): string[] => plan.workloads.map(workloadName);

describe('planRun', () => {
  it('measures what llama-bench measures, in a context that just holds it', () => {
    const plan = planRun(config, {});
    expect(namesOf(plan)).toEqual(['tg128', 'pp512']);
    expect(plan.limits).toEqual({ rows: 64, samples: 1, slots: 1, context: 512 });
  });

  it('shrinks to a short context', () => {
    expect(namesOf(planRun({ ...config, context: 100 }, {}))).toEqual(['tg92', 'pp100']);
    expect(namesOf(planRun({ ...config, context: 2 }, {}))).toEqual(['tg1 @ d1', 'pp2']);
  });

  it('takes what is asked for', () => {
    const plan = planRun(config, { tokens: 16, promptTokens: 0, depth: 4000, context: 4096 });
    expect(namesOf(plan)).toEqual(['tg16 @ d4000']);
    expect(plan.limits).toMatchObject({ rows: 64, context: 4096 });
  });

  it('refuses what does not fit, and nothing', () => {
    const small = { ...config, context: 256 };
    for (const sizes of [{ promptTokens: 257 }, { tokens: 249 }, { depth: 256 }, { context: 512 }, { context: 1 }]) {
      expect(() => planRun(small, sizes)).toThrow(UsageError);
    }
    expect(() => planRun(small, { tokens: 0, promptTokens: 0 })).toThrow('nothing to measure');
  });

  it('decodes at all contexts that the model holds, and tells of the others', () => {
    const held = planRun({ ...config, context: 2048 }, { promptTokens: 0, contexts: [1024, 32, 1920, 1921] }, 32);
    expect(namesOf(held)).toEqual(['tg128 @ d32', 'tg128 @ d1024', 'tg128 @ d1920']);
    expect(held).toMatchObject({ depth: 32, limits: { rows: 64, context: 2048 }, skipped: [{ depth: 1921 }] });
    expect(planRun(config, { contexts: [1024], context: 512 }).skipped).toEqual([{ depth: 1024 }]);
    expect(() => planRun(config, { tokens: 0, contexts: [64] })).toThrow('no tokens are decoded');
  });

  it('always stays inside the context', () => {
    const size = fc.option(fc.nat(600), { nil: undefined });
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 600 }), size, size, (context, tokens, promptTokens) => {
        const sizes = {
          ...(tokens === undefined ? {} : { tokens }),
          ...(promptTokens === undefined ? {} : { promptTokens }),
        };
        try {
          const { limits, workloads } = planRun({ ...config, context }, sizes);
          expect(limits.context).toBeLessThanOrEqual(context);
          for (const workload of workloads) {
            const end = workload.tokens + (workload.kind === 'decode' ? workload.depth : 0);
            expect(end).toBeLessThanOrEqual(limits.context);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
    );
  });
});

describe('threadCounts', () => {
  it('tries powers of two and all cores', () => {
    expect(threadCounts(1)).toEqual([1]);
    expect(threadCounts(2)).toEqual([1, 2]);
    expect(threadCounts(6)).toEqual([1, 2, 4, 6]);
    expect(threadCounts(8)).toEqual([1, 2, 4, 8]);
  });
});

describe('fillerTokens', () => {
  it('are tokens of the vocabulary, and not all the same', () => {
    const tokens = fillerTokens(1000, 331);
    expect(tokens.every((token) => Number.isInteger(token) && token >= 0 && token < 331)).toBe(true);
    expect(new Set(tokens).size).toBe(331);
  });
});
