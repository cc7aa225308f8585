import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findCompiler } from '../../src/backends/cpu/toolchain.js';
import { schedules } from '../../src/ir/program.js';
import { linesOf, runCli } from '../support/cli.js';
import { shareCliProcess } from '../support/cli-process.js';
import { tinyCalls, writeTinyModel, type TinyModel } from '../support/tiny-model.js';

interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

interface BenchJson {
  readonly machine: Record<string, unknown>;
  readonly correctness: { readonly variants: number; readonly equal_tokens: number; readonly peers: unknown[] };
  readonly bandwidth: { readonly measured: number[]; readonly bytes_per_second: Spread } | null;
  readonly results: readonly ResultJson[];
  readonly profile: readonly { test: string; kernel: string; stage: string; count: number; nanoseconds: number }[];
  readonly [field: string]: unknown;
}

interface ResultJson {
  readonly schedule: string;
  readonly threads: number;
  readonly test: string;
  readonly tokens: number;
  readonly tokens_per_second: Spread;
  readonly us_per_token: Spread;
  readonly kernel_calls_per_token: number;
  readonly barriers_per_token: number;
  readonly bytes_per_token: number;
  readonly bytes_per_second: number;
  readonly bandwidth_fraction: Spread | null;
  readonly ratio_to_operator: Spread | null;
  readonly ratio_to_peer: null;
  readonly rounds: readonly { readonly milliseconds: number; readonly kernel_calls: number }[];
}

const compiler = await findCompiler();
const demo = existsSync(fileURLToPath(new URL('../../demo/config.json', import.meta.url)));

const runShared = shareCliProcess();

describe('kloop bench', () => {
  let model: TinyModel;
  const cacheDir = mkdtempSync(join(tmpdir(), 'kloop-bench-'));
  beforeAll(async () => {
    model = await writeTinyModel();
  });
  afterAll(() => {
    model.remove();
    rmSync(cacheDir, { recursive: true, force: true });
  });

  const bench = async (...args: string[]): Promise<BenchJson> => {
    const { code, stdout, stderr } = await runCli(['bench', ...args, '--cache-dir', cacheDir, '--json']);
    expect([code, stderr]).toEqual([0, expect.any(String)]);
    const json = JSON.parse(stdout) as BenchJson;
    for (const result of json.results) expectConsistent(result, json);
    return json;
  };

  it('measures all schedules on the reference backend', async () => {
    const args = ['--backend', 'reference', '--rounds', '2', '--tokens', '6', '--prompt-tokens', '12'];
    const json = await bench(model.path, ...args);
    expect(json).toMatchObject({ model: 'tiny', backend: 'reference', quant: 'f32', rounds: 2, peers: [], best: [] });
    expect(json.correctness).toMatchObject({ variants: 4, peers: [] });
    expect(json.results.map(({ test, schedule }) => [test, schedule])).toEqual([
      ...schedules.map((schedule) => ['tg6', schedule]),
      ...schedules.map((schedule) => ['pp12', schedule]),
    ]);
    const calls = json.results.slice(0, 4).map((result) => result.kernel_calls_per_token);
    expect(calls).toEqual([tinyCalls.operator, tinyCalls.layer, tinyCalls.looped, 1 / 6]);
    expect(json.results[0]?.ratio_to_operator).toEqual({ median: 1, min: 1, max: 1 });
  });

  it.runIf(compiler !== undefined)('measures threads on the CPU, and the bandwidth between the rounds', async () => {
    const args = ['--backend', 'cpu', '--threads', '1', '--schedules', 'response,looped', '--rounds', '1'];
    const json = await bench(model.path, ...args, '--tokens', '8', '--prompt-tokens', '0');
    expect(json.results.map(({ schedule, threads }) => [schedule, threads])).toEqual([
      ['response', 1],
      ['looped', 1],
    ]);
    expect(json.results[0]).toMatchObject({ ratio_to_operator: null, kernel_calls_per_token: 1 / 8 });
    expect(json.bandwidth?.measured).toHaveLength(2);
    expect(json.profile).toEqual([]);
  });

  it.runIf(compiler !== undefined)('tells the time of stages, of tokens and of prompts', async () => {
    const args = ['--backend', 'cpu', '--threads', '1', '--schedules', 'looped', '--rounds', '1'];
    const { profile } = await bench(model.path, ...args, '--tokens', '8', '--prompt-tokens', '16', '--profile');
    const head = (test: string) => profile.find((one) => one.test === test && one.stage === 'lm_head');
    expect(head('tg8')).toMatchObject({ kernel: 'step_lm_head', count: 8 });
    expect(head('pp16')).toMatchObject({ kernel: 'step_lm_head', count: 1 });
    expect(profile.every(({ nanoseconds }) => nanoseconds > 0)).toBe(true);
  });

  it.runIf(demo)('measures the bundled model where none is named', async () => {
    // All schedules are measured above; here every one takes seconds to compile.
    const args = ['--schedules', 'operator,response', '--rounds', '1', '--tokens', '8', '--prompt-tokens', '8'];
    const json = await bench(...args);
    expect(json).toMatchObject({ model: 'demo', synthetic: false });
    expect(json.results).toHaveLength(4);
  });

  it('prints a table', async () => {
    const args = ['--backend', 'reference', '--rounds', '1', '--tokens', '4', '--prompt-tokens', '4'];
    const { code, stdout } = await runCli(['bench', model.path, ...args, '--cache-dir', cacheDir]);
    expect(code).toBe(0);
    const lines = linesOf(stdout);
    const header = lines.findIndex((line) => line.startsWith('schedule '));
    expect(lines.slice(0, header).join('\n')).toMatch(
      /tiny: .*f32 weights.*\nchecked: 4 variants, the same \d+ tokens/,
    );
    expect(lines[header]).toMatch(/threads +test +tok\/s .*us\/token +calls +barriers .*vs operator/);
    const end = lines.indexOf('', header);
    expect(lines.slice(header + 1, end).map((line) => line.split(/ +/, 3))).toEqual([
      ...schedules.map((schedule) => [schedule, '1', 'tg4']),
      ...schedules.map((schedule) => [schedule, '1', 'pp4']),
    ]);
  });

  it.each([
    [['--schedules', 'looped,fast'], /Allowed choices are operator/],
    [['--threads', '0'], /whole number/],
    [['--threads', '2', '--backend', 'reference'], /reference backend runs in one thread, not in 2/],
    [['--rounds', '0'], /whole number/],
    [['--peer', 'vllm'], /Allowed choices are llama\.cpp, pytorch/],
    [['--quant', 'q5_0'], /Allowed choices are f32, bf16/],
    [['--tokens', '500', '--backend', 'reference'], /500 tokens after 8, do not fit a context of 128; ask for fewer/],
    [['--context', '1000', '--backend', 'reference'], /context of 1000 is more than the 128/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr, stdout } = await runShared(['bench', model.path, ...args, '--cache-dir', cacheDir]);
    expect([code, stdout]).toEqual([2, '']);
    expect(linesOf(stderr).at(-1)).toMatch(message);
  });

  it('stops at Ctrl+C', async () => {
    const args = ['bench', model.path, '--backend', 'reference', '--rounds', '1000', '--cache-dir', cacheDir];
    const { code, stdout } = await runCli(args, {
      onStderr: (text, child) => {
        if (text.includes('measuring ...')) child.kill('SIGINT');
      },
    });
    expect([code, stdout]).toEqual([130, '']);
  });
});

/** The figures of a result follow from its runs. */
function expectConsistent(result: ResultJson, { rounds, bandwidth }: BenchJson): void {
  expect(result.rounds).toHaveLength(rounds as number);
  const rates = result.rounds.map(({ milliseconds }) => (result.tokens / milliseconds) * 1000);
  const { median, min, max } = result.tokens_per_second;
  expect([min, max]).toEqual([Math.min(...rates), Math.max(...rates)]);
  expect(result.us_per_token.min * max).toBeCloseTo(1e6, 3);
  expect(result.us_per_token.max * min).toBeCloseTo(1e6, 3);
  expect(result.bytes_per_second).toBeCloseTo(result.bytes_per_token * median, 0);
  const calls = result.rounds.reduce((sum, { kernel_calls }) => sum + kernel_calls, 0);
  expect(result.kernel_calls_per_token).toBeCloseTo(calls / result.rounds.length / result.tokens, 9);
  expect(result.ratio_to_peer).toBeNull();
  if (bandwidth === null) expect(result.bandwidth_fraction).toBeNull();
  else expect(result.bandwidth_fraction?.median).toBeGreaterThan(0);
}
