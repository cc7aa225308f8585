import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { linesOf, runCli } from '../support/cli.js';
import { shareCliProcess } from '../support/cli-process.js';
import { tinyConfig, writeTinyModel, type TinyModel } from '../support/tiny-model.js';

const runShared = shareCliProcess();

/** Nothing on stdout, one line on stderr. */
async function failure(args: readonly string[], code: number, run = runShared): Promise<string> {
  const result = await run(args);
  expect(result.stdout).toBe('');
  expect(linesOf(result.stderr)).toHaveLength(1);
  expect(result.stderr).toMatch(/^kloop: /);
  expect(result.code).toBe(code);
  return result.stderr;
}

describe('usage errors (exit code 2)', () => {
  it.each([
    [['rnu'], /unknown command 'rnu' \(Did you mean run\?\); see `kloop --help`/],
    [['run', 'demo'], /'--prompt <text>' not specified; see `kloop run --help`/],
    [['run', '--prompt', 'x'], /missing required argument 'model'/],
    [['run', 'demo', '--prompt', 'x', '--tempreature', '1'], /unknown option '--tempreature'.*--temperature/],
    [['run', 'demo', '--promt', 'x'], /unknown option '--promt' \(Did you mean --prompt\?\); see `kloop run --help`/],
    [['help', 'rnu'], /unknown command 'rnu'; see `kloop --help`/],
    [['simulate', 'demo', '--machine', 'h200', '--csv'], /--csv prints a sweep.*--sweep/],
    [['explain', 'demo', '--ir', '--json'], /'--ir' cannot be used with option '--json'; see `kloop explain --help`/],
    [['reproduce', '--markdown', '--json'], /'--markdown' cannot be used with option '--json'/],
    [['synth', 'smollm2-135m', '--out', ''], /'--out <dir>' argument '' is invalid. It must not be empty/],
    [['run', 'demo', '--prompt', 'x', '--cache-dir', ''], /'--cache-dir <dir>' argument '' is invalid/],
    [['bench', 'demo', '--cache-dir', ''], /'--cache-dir <dir>' argument '' is invalid/],
    [['calibrate', '--cache-dir', ''], /'--cache-dir <dir>' argument '' is invalid/],
    [['calibrate', '--output', 'mine'], /'mine' is invalid. It must end with .json/],
    [['simulate', 'demo', '--machine', 'h200', '--trace', ''], /'--trace <file>' argument '' is invalid/],
    [['reproduce', '--svg', ''], /'--svg <dir>' argument '' is invalid/],
    [['bench', 'demo', '--depth', '1000'], /depth of 1000 .*context of 512/],
    [
      ['run', 'demo', '--prompt', 'x', '--max-tokens', 'many'],
      /'many' is invalid. It must be a whole number, at least 1/,
    ],
    [['run', 'demo', '--prompt', 'x', '--max-tokens', '1.5'], /'1.5' is invalid/],
    [['run', 'demo', '--prompt', 'x', '--top-p', '1.2'], /It must be a number from 0 to 1/],
    [['run', 'demo', '--prompt', 'x', '--schedule', 'fast'], /Allowed choices are operator, layer, looped, response/],
    [['presets', 'extra'], /too many arguments/],
    [['synth', 'no-such', '--out', 'x'], /no preset "no-such"; `kloop presets` lists them/],
    [['explain', 'llama-3.1-8b', '--sockets', '0'], /'0' is invalid/],
  ])('%j', async (args, message) => {
    expect(await failure(args, 2)).toMatch(message);
  });

  it.skipIf(!existsSync('/dev/full'))('says that output could not be written', async () => {
    const { code, stderr } = await runCli(['presets'], { wrap: ['sh', '-c', 'exec "$@" > /dev/full', 'sh'] });
    expect([code, stderr]).toEqual([
      1,
      'kloop: standard output: no space left on the disk; free some space or choose another place\n',
    ]);
  });

  it('prints help where nothing is asked', async () => {
    const { code, stdout, stderr } = await runCli([]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain('Usage: kloop');
  });
});

describe('what is asked for (exit code 0)', () => {
  it('prints help and version on stdout', async () => {
    const help = await runCli(['run', '--help']);
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout).toContain('--max-tokens');
    expect((await runCli(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('lists presets, as a table and as JSON', async () => {
    const table = await runCli(['presets']);
    expect(table.stdout).toMatch(/^llama-3\.1-8b +8\.03B +32 +4096 +131072/m);
    const { presets } = JSON.parse((await runCli(['presets', '--json'])).stdout) as { presets: { name: string }[] };
    expect(presets.map(({ name }) => name)).toContain('gemma-2-2b');
    expect(linesOf(table.stdout)).toHaveLength(presets.length + 1);
  });

  it('looks at the machine', async () => {
    const { code, stdout } = await runCli(['doctor', '--json']);
    expect(code).toBe(0);
    const found = JSON.parse(stdout) as Record<string, unknown>;
    expect(found['node']).toBe(process.versions.node);
    expect(Object.keys(found)).toEqual(expect.arrayContaining(['cpu', 'cores', 'memory', 'compiler', 'cache', 'gpu']));
    expect((await runCli(['doctor'])).stdout).toMatch(/Node\.js +\d/);
  });
});

describe('models that cannot be run (exit code 1)', () => {
  let model: TinyModel;
  beforeAll(async () => {
    model = await writeTinyModel();
  });
  afterAll(() => model.remove());

  const run = (path: string): Promise<string> => failure(['run', path, '--prompt', 'x', '--backend', 'reference'], 1);

  it('says what a model can be', async () => {
    const alone = await failure(['run', 'no-such-model', '--prompt', 'x'], 1, (args) => runCli(args));
    expect(alone).toMatch(/no-such-model: .*directory/);
    expect(await run('owner/never-pulled')).toMatch(/kloop pull owner\/never-pulled/);
    expect(await run('llama-3.1-8b')).toMatch(/is a preset.*kloop synth llama-3\.1-8b/);
  });

  const broken: readonly [string, Record<string, string | object>, RegExp][] = [
    ['no config', {}, /config\.json: /],
    ['a config that is no JSON', { 'config.json': '{"a": ' }, /config\.json: /],
    ['an unknown architecture', { 'config.json': { architectures: ['RwkvForCausalLM'] } }, /RwkvForCausalLM/],
    ['no layers', { 'config.json': { ...tinyConfig, num_hidden_layers: 0 } }, /num_hidden_layers/],
    ['a billion heads', { 'config.json': { ...tinyConfig, num_attention_heads: 1e9 } }, /num_attention_heads/],
    ['no weights', { 'config.json': tinyConfig, 'tokenizer.json': {} }, /safetensors/],
    [
      'a truncated weights file',
      { 'config.json': tinyConfig, 'tokenizer.json': {}, 'model.safetensors': 'abc' },
      /model\.safetensors: /,
    ],
  ];
  it.each(broken)('%s', async (_, files, message) => {
    const directory = mkdtempSync(join(tmpdir(), 'kloop-broken-'));
    try {
      for (const [name, content] of Object.entries(files)) {
        writeFileSync(join(directory, name), typeof content === 'string' ? content : JSON.stringify(content));
      }
      expect(await run(directory)).toMatch(message);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('a tokenizer that is none', async () => {
    const other = await writeTinyModel();
    try {
      other.editJson('tokenizer.json', (json) => delete json['model']);
      expect(await run(other.path)).toMatch(/tokenizer\.json: /);
    } finally {
      other.remove();
    }
  });

  it('a context that the model does not have, and a prompt beyond it', async () => {
    const base = ['run', model.path, '--backend', 'reference', '--prompt'];
    expect(await failure([...base, 'x', '--context', '1000'], 2)).toMatch(/context is 1000.*from 1 to 128/);
    expect(await failure([...base, 'x'.repeat(300)], 1)).toMatch(/the prompt has 301 tokens, the context holds 128/);
  });
});
