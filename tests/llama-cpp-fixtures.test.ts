/**
 * Our backends against llama.cpp on the same weights: the same greedy tokens, and the same highest logits in front of
 * them. The answers were recorded by scripts/make-peer-fixtures.mjs in float32, which is how our side computes here.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import type { Backend, Executable, SampleSettings, StepResult } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/cpu/index.js';
import { findCompiler } from '../src/backends/cpu/toolchain.js';
import { referenceBackend } from '../src/backends/reference/index.js';
import { openWeights, type Weights } from '../src/checkpoint/weights.js';
import { parseModelConfig } from '../src/models/parse-config.js';
import { compileModel } from '../src/passes/pipeline.js';
import { createQuickCpuBackend } from './support/quick-cpu.js';

interface Case {
  readonly prompt: readonly number[];
  readonly tokens: readonly number[];
  /** Per token, the highest logits that it was chosen from, highest first. */
  readonly top: readonly (readonly (readonly [token: number, logit: number])[])[];
}

const root = fileURLToPath(new URL('..', import.meta.url));
const fixtures = join(root, 'tests', 'fixtures');
const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));

const cacheDir = mkdtempSync(join(tmpdir(), 'kloop-llama-cpp-'));
const opened: Weights[] = [];
afterAll(() => {
  for (const weights of opened) weights.close();
  rmSync(cacheDir, { recursive: true });
});

/** The checkpoint under the `response` schedule, everything in float32. */
async function prepare(backend: Backend, directory: string, rows: number, context: number): Promise<Executable> {
  const { plan } = compileModel(parseModelConfig(readJson(join(directory, 'config.json')), 'fixture'), {
    schedule: 'response',
    limits: { rows, samples: 1, slots: 1, context },
    weightFormat: 'f32',
    stateFormat: 'f32',
    capabilities: backend.capabilities,
    workers: Math.min(2, backend.capabilities.maxWorkers),
  });
  const weights = openWeights(directory);
  opened.push(weights);
  return backend.prepare(plan, weights, { threads: Math.min(2, backend.capabilities.maxWorkers), cacheDir });
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

/** Makes `steps` tokens after `tokens`, the first of which stands at `position`. */
function continueFrom(
  executable: Executable,
  tokens: readonly number[],
  position: number,
  steps: number,
): Promise<StepResult> {
  return executable.run({
    tokens: Int32Array.from(tokens),
    positions: Int32Array.from(tokens, (_, row) => position + row),
    slots: new Int32Array(tokens.length),
    index: Int32Array.of(tokens.length - 1),
    sampling: [greedy],
    stopTokens: [],
    steps,
    wantLogits: steps === 1,
  });
}

/** `tolerance` bounds the difference of logits; it is far below the distance of the two highest in every fixture. */
async function expectSame(executable: Executable, { prompt, tokens, top }: Case, tolerance: number): Promise<void> {
  await executable.reset();
  const first = await continueFrom(executable, prompt, 0, 1);
  for (const [token, logit] of top[0]!) {
    expect(Math.abs(first.logits![token]! - logit), `logit of token ${token}`).toBeLessThan(tolerance);
  }
  expect(first.tokens).toEqual([tokens.slice(0, 1)]);
  const rest = await continueFrom(executable, tokens.slice(0, 1), prompt.length, tokens.length - 1);
  expect(rest.tokens).toEqual([tokens.slice(1)]);
}

const hasCompiler = (await findCompiler()) !== undefined;
const backends = [
  { name: 'reference', backend: referenceBackend, runs: true },
  { name: 'cpu', backend: createQuickCpuBackend(), runs: hasCompiler },
];
const families = ['llama', 'llama3', 'mistral', 'qwen2', 'qwen3', 'gemma2'];

describe.each(backends.filter(({ runs }) => runs))('$name makes the tokens of llama.cpp', ({ backend }) => {
  test.each(families)('%s', async (family) => {
    const directory = join(fixtures, family);
    const { cases } = readJson(join(directory, 'expected-llama-cpp.json')) as { cases: readonly Case[] };
    const executable = await prepare(backend, directory, 32, 64);
    // llama.cpp looks GELU up in a table of halves.
    const tolerance = family === 'gemma2' ? 1e-3 : 1e-4;
    for (const expected of cases) await expectSame(executable, expected, tolerance);
    await executable.close();
  });
});

const demo = join(fixtures, 'demo-llama-cpp.json');
// Compiled as users have it.
describe.runIf(existsSync(demo) && hasCompiler)('the bundled model', () => {
  test('cpu makes the tokens of llama.cpp', async () => {
    const expected = readJson(demo) as Case;
    const executable = await prepare(createCpuBackend(), join(root, 'demo'), 32, 256);
    await expectSame(executable, expected, 1e-3);
    await executable.close();
  });
});
