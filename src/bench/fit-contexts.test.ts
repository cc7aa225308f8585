import { describe, expect, it } from 'vitest';
import type { MemoryNeed } from '../backends/backend.js';
import { findPreset } from '../models/presets.js';
import { defined } from '../util/assert.js';
import { ToolchainError } from '../util/errors.js';
import { fitContexts } from './fit-contexts.js';
import { planRun, type Plan, type Sizes } from './settings.js';
import { workloadName } from './workload.js';

const { config } = defined(findPreset('smollm2-135m'), 'preset');

/** The plan where a position takes 10 bytes beside 1000 of weights. */
function fitted(free: number, sizes: Sizes): Plan {
  const needOf = ({ limits }: Plan): MemoryNeed => ({ needed: 1000 + 10 * limits.context, free });
  return fitContexts(sizes.contexts ?? [], (contexts) => planRun(config, { ...sizes, contexts }), needOf);
}

describe('fitContexts', () => {
  const sizes = { promptTokens: 0, contexts: [1024, 9000, 4096, 2048, 4096] };
  const names = (plan: Plan): string[] => plan.workloads.map(workloadName);

  it('keeps what there is memory for', () => {
    const plan = fitted(1e6, sizes);
    expect(names(plan)).toEqual(['tg128', 'tg128 @ d1024', 'tg128 @ d4096', 'tg128 @ d2048']);
    expect(plan.skipped).toEqual([{ depth: 9000 }]);
  });

  it('leaves out the longest, one after another, and says what they need', () => {
    const plan = fitted(1000 + 10 * 2303, sizes);
    expect(names(plan)).toEqual(['tg128', 'tg128 @ d1024']);
    expect(plan.limits.context).toBe(1280);
    expect(plan.skipped).toEqual([
      { depth: 9000 },
      { depth: 4096, need: { needed: 1000 + 10 * 4352, free: 24030 } },
      { depth: 2048, need: { needed: 1000 + 10 * 2304, free: 24030 } },
    ]);
  });

  it('says what is needed where leaving out contexts does not help', () => {
    expect(() => fitted(2000, sizes)).toThrow(ToolchainError);
    expect(() => fitted(2000, sizes)).toThrow(/needs .* on the device, and .* are free/);
    expect(() => fitted(30_000, { ...sizes, context: 8192 })).toThrow(/needs .* on the device/);
  });
});
