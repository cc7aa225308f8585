import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { modelConfig, smallLimits, Workspace } from '../../../tests/support/models.js';
import { createQuickCpuBackend } from '../../../tests/support/quick-cpu.js';
import { trace, type Trace } from '../../../tests/support/steps.js';
import { compileModel } from '../../passes/pipeline.js';
import { packedLength } from '../../passes/pack-weights.js';
import type { WeightsMemory } from '../backend.js';
import { spansToCopy, takesLargePages } from './weights-memory.js';

const workspace = new Workspace();
const cacheDir = mkdtempSync(join(tmpdir(), 'kloop-weights-memory-'));
afterAll(() => {
  workspace.remove();
  rmSync(cacheDir, { recursive: true });
});

const backend = createQuickCpuBackend();
const config = modelConfig('llama', 'f32');
const { capabilities } = backend;
const { plan } = compileModel(config, { schedule: 'looped', limits: smallLimits, capabilities, workers: 3 });

describe('spansToCopy', () => {
  const bytes = packedLength(plan.step);

  it('covers every matrix once, in order', () => {
    const spans = spansToCopy(plan.step, 'own');
    let end = 0;
    for (let i = 0; i < spans.length; i += 2) {
      expect(spans[i]).toBeGreaterThanOrEqual(end);
      end = spans[i]! + spans[i + 1]!;
    }
    expect(end).toBe(bytes);
  });

  it('copies unasked where that leaves half of the memory free, and whenever it is asked to', () => {
    expect(spansToCopy(plan.step, 'auto', 2 * bytes).length).toBeGreaterThan(0);
    expect(spansToCopy(plan.step, 'auto', 2 * bytes - 1)).toHaveLength(0);
    expect(spansToCopy(plan.step, 'own', 0).length).toBeGreaterThan(0);
    expect(spansToCopy(plan.step, 'mapped', 1e12)).toHaveLength(0);
  });
});

describe('an engine', () => {
  const run = async (weightsMemory: WeightsMemory, threads: number): Promise<Trace> => {
    const weights = await workspace.weights(config);
    const executable = await backend.prepare(plan, weights, { threads, cacheDir, weightsMemory });
    try {
      return await trace(executable, { prompt: [1, 49, 171] }, 3);
    } finally {
      await executable.close();
    }
  };

  it('computes the same wherever its weights are, whoever copied them', async () => {
    const expected = await run('mapped', 3);
    for (const threads of [1, 2, 3, 7]) expect(await run('own', threads)).toEqual(expected);
  });

  it.runIf(process.platform === 'linux')('keeps its workers where they are told to stay', async () => {
    const weights = await workspace.weights(config);
    const pinned = (): number => {
      const tasks = readdirSync('/proc/self/task').map((id) => readFileSync(`/proc/self/task/${id}/status`, 'utf8'));
      return tasks.filter((status) => /^Cpus_allowed_list:\s*\d+$/m.test(status)).length;
    };
    const before = pinned();
    for (const pin of [false, true]) {
      const executable = await backend.prepare(plan, weights, { threads: 3, cacheDir, pin });
      expect(pinned() - before).toBe(pin ? 3 : 0);
      await executable.close();
    }
  });

  it('does not start on a packed file that ends early', async () => {
    for (const weightsMemory of ['own', 'mapped'] as const) {
      const weights = await workspace.weights(config);
      const preparing = backend.prepare(plan, weights, {
        cacheDir,
        weightsMemory,
        // Between packing and loading.
        onProgress: ({ phase, done }) => {
          if (phase !== 'load' || done > 0) return;
          for (const file of readdirSync(cacheDir)) {
            if (file.startsWith('weights-')) truncateSync(join(cacheDir, file), 100);
          }
        },
      });
      await expect(preparing).rejects.toThrow(/cannot read \d+ bytes of packed weights: the file is too short/);
    }
  });
});

describe('takesLargePages', () => {
  it('keeps caches in small pages that would take much of the memory at once', () => {
    expect(takesLargePages(1000, 8000)).toBe(true);
    expect(takesLargePages(1001, 8000)).toBe(false);
    expect(takesLargePages(4096)).toBe(true);
  });
});
