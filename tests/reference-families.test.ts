/**
 * Every family against an independent float64 implementation (scripts/float64): the same checkpoint through config, model
 * builder and reference backend must choose the same tokens from the same logits.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Executable, SampleSettings, Step } from '../src/backends/backend.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import { openWeights } from '../src/checkpoint/weights.js';
import { schedules } from '../src/ir/program.js';
import { parseModelConfig } from '../src/models/parse-config.js';
import { compileModel, type CompileOptions } from '../src/passes/pipeline.js';

const families = ['llama', 'llama3', 'mistral', 'qwen2', 'qwen3', 'gemma2'] as const;

interface Expected {
  readonly prompt: readonly number[];
  readonly tokens: readonly number[];
  /** Of every token, the logits that it was chosen from. */
  readonly logits: readonly (readonly number[])[];
}

function fixture(family: string): { directory: string; config: unknown; expected: Expected } {
  const directory = fileURLToPath(new URL(`fixtures/${family}`, import.meta.url));
  const json = (file: string): unknown => JSON.parse(readFileSync(`${directory}/${file}`, 'utf8'));
  return { directory, config: json('config.json'), expected: json('expected.json') as Expected };
}

async function prepare(family: string, options: Partial<CompileOptions> = {}): Promise<Executable> {
  const { directory, config } = fixture(family);
  const { plan } = compileModel(parseModelConfig(config, family), {
    schedule: 'operator',
    limits: { rows: 5, samples: 2, slots: 2, context: 64 },
    capabilities: referenceBackend.capabilities,
    ...options,
  });
  return referenceBackend.prepare(plan, openWeights(directory), {});
}

const greedy: SampleSettings = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: [0, 0],
  remaining: 1000,
};

/** A step over consecutive tokens of slot 1; the last row is the sample where one is wanted. */
function stepOf(tokens: readonly number[], position: number, options: Partial<Step> & { sample: boolean }): Step {
  const { sample, ...rest } = options;
  return {
    tokens: Int32Array.from(tokens),
    positions: Int32Array.from(tokens, (_, row) => position + row),
    slots: new Int32Array(tokens.length).fill(1),
    index: Int32Array.from(sample ? [tokens.length - 1] : []),
    sampling: sample ? [greedy] : [],
    stopTokens: [],
    steps: 1,
    ...rest,
  };
}

/** Feeds all but the last token of the prompt, in chunks. */
async function prefill(executable: Executable, prompt: readonly number[]): Promise<void> {
  for (let at = 0; at < prompt.length - 1; at += 5) {
    await executable.run(stepOf(prompt.slice(at, Math.min(at + 5, prompt.length - 1)), at, { sample: false }));
  }
}

describe.each(families)('%s', (family) => {
  const { expected } = fixture(family);
  const { prompt, tokens } = expected;

  it('has the logits of the float64 reference at every step', async () => {
    const executable = await prepare(family, { stateFormat: 'f32' });
    await prefill(executable, prompt);
    let input = prompt.at(-1)!;
    for (const [at, row] of expected.logits.entries()) {
      const step = stepOf([input], prompt.length - 1 + at, { sample: true, wantLogits: true });
      const result = await executable.run(step);
      const range = Math.max(...row) - Math.min(...row);
      const worst = Math.max(...row.map((logit, id) => Math.abs(logit - result.logits![id]!)));
      expect(worst / range, `token ${at}`).toBeLessThan(1e-5);
      expect(result.tokens).toEqual([[tokens[at]]]);
      input = tokens[at]!;
    }
  });

  it.each(schedules)('makes the tokens of the float64 reference under %s, with its usual cache', async (schedule) => {
    const executable = await prepare(family, { schedule });
    await prefill(executable, prompt);
    const steps = tokens.length;
    const result = await executable.run(stepOf([prompt.at(-1)!], prompt.length - 1, { sample: true, steps }));
    // The fixtures were chosen so that a bf16 cache cannot change a token either.
    expect(result.tokens).toEqual([tokens]);
    expect(executable.counters.tokens).toBe(steps);
  });
});
