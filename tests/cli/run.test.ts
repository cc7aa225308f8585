import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { schedules } from '../../src/ir/program.js';
import { linesOf, runCli, type CliOptions, type CliResult } from '../support/cli.js';
import { tinyCalls, writeTinyModel, type TinyModel } from '../support/tiny-model.js';

interface RunJson {
  readonly text: string;
  readonly prompt_tokens: number[];
  readonly tokens: number[];
  readonly finish_reason: string;
  readonly seed: number;
  readonly kernel_calls_per_token: number;
  readonly [field: string]: unknown;
}

const fields = [
  ...['text', 'prompt_tokens', 'tokens', 'finish_reason', 'schedule', 'backend', 'quant', 'threads', 'kernel_calls'],
  ...[
    'kernel_calls_per_token',
    'barriers_per_token',
    'prefill_ms',
    'decode_ms',
    'tokens_per_second',
    'bytes_per_token',
  ],
];

describe('kloop run', () => {
  let model: TinyModel;
  beforeAll(async () => {
    model = await writeTinyModel();
  });
  afterAll(() => model.remove());

  const run = (args: readonly string[], options?: CliOptions): Promise<CliResult> =>
    runCli(['run', model.path, '--backend', 'reference', '--max-tokens', '20', '--ignore-eos', ...args], options);
  const json = async (...args: string[]): Promise<RunJson> => {
    const { code, stdout } = await run(['--prompt', 'Once', '--json', ...args]);
    expect(code).toBe(0);
    return JSON.parse(stdout) as RunJson;
  };

  it('prints one JSON object with what the contract names', async () => {
    const result = await json();
    expect(Object.keys(result)).toEqual(expect.arrayContaining(fields));
    expect(result).toMatchObject({ finish_reason: 'length', backend: 'reference', quant: 'f32', threads: 1 });
    expect(result.tokens).toHaveLength(20);
    // BOS and a token per byte.
    expect(result.prompt_tokens).toHaveLength(5);
  });

  it('makes the same tokens under every schedule, in as many calls as the schedule says', async () => {
    const results = await Promise.all(schedules.map((schedule) => json('--schedule', schedule)));
    for (const { tokens } of results) expect(tokens).toEqual(results[0]!.tokens);
    const calls = results.map((result) => result.kernel_calls_per_token);
    expect(calls.slice(0, 3)).toEqual([tinyCalls.operator, tinyCalls.layer, tinyCalls.looped]);
    expect(calls[3]).toBeLessThan(tinyCalls.looped);
  });

  it('streams the text to stdout and the summary to stderr', async () => {
    const expected = await json();
    const plain = await run(['--prompt', 'Once', '--compare', 'operator']);
    expect(plain.stdout).toBe(`${expected.text}\n`);
    const [summary, comparison, ...others] = linesOf(plain.stderr);
    expect(summary).toMatch(/^20 tokens; response: [\d.]+ tokens\/s, [\d.]+ kernel calls per token; backend reference/);
    expect(comparison).toMatch(/^operator: [\d.]+ tokens\/s, 23 kernel calls per token; response is [\d.]+x as fast/);
    expect(others).toEqual([]);
    expect((await run(['--prompt', 'Once', '--echo'])).stdout).toBe(`Once${expected.text}\n`);
  });

  it('says that the context is full, and offers a larger one only where there is one', async () => {
    const [smaller, whole] = await Promise.all(
      ['64', '128'].map((context) => run(['--prompt', 'Once', '--max-tokens', '500', '--context', context])),
    );
    expect(linesOf(smaller!.stderr)[0]).toBe(
      'kloop: the context of 64 tokens is full; --context makes it larger, up to 128',
    );
    expect(linesOf(whole!.stderr)[0]).toBe('kloop: the context of 128 tokens is full, the largest of this model');
    const long = ['--prompt', 'x'.repeat(200)];
    expect((await run([...long, '--context', '64'])).stderr).toMatch(
      /; shorten the prompt or load the model with a larger context, up to 128$/m,
    );
    expect((await run(long)).stderr).toMatch(/holds 128; shorten the prompt$/m);
  });

  it('reads the prompt from stdin', async () => {
    const expected = await json();
    expect((await run(['--prompt', '-'], { input: 'Once\n' })).stdout).toBe(`${expected.text}\n`);
  });

  it('samples the same text for the same seed, and tells the seed', async () => {
    const first = await json('--temperature', '1.5');
    const again = await json('--temperature', '1.5', '--seed', String(first.seed));
    const other = await json('--temperature', '1.5', '--seed', String(first.seed + 1));
    expect(again.tokens).toEqual(first.tokens);
    expect(other.tokens).not.toEqual(first.tokens);
  });

  it('says when sampling options have no effect', async () => {
    expect((await run(['--prompt', 'x', '--top-k', '5', '--json'])).stderr).toMatch(/no effect without --temperature/);
  });

  it('ends before a stop string', async () => {
    const { text } = await json();
    const stop = text.slice(6, 9);
    const stopped = await json('--stop', stop);
    expect(stopped).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finish_reason: 'stop' });
  });

  it('stops at Ctrl+C, prints what is there, and returns 130', async () => {
    let pieces = 0;
    const { code, stdout } = await run(['--prompt', 'Once', '--max-tokens', '120'], {
      onStdout: (_, child) => {
        if (++pieces === 1) child.kill('SIGINT');
      },
    });
    expect(code).toBe(130);
    expect(stdout.length).toBeGreaterThan(1);
    expect(stdout.endsWith('\n')).toBe(true);
  });

  it('ends quietly when nobody reads any more', async () => {
    const { code, stderr } = await run(['--prompt', 'Once', '--max-tokens', '120'], {
      onStdout: (_, child) => child.stdout?.destroy(),
    });
    expect([code, stderr]).toEqual([0, '']);
  });
});
