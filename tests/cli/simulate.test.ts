import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { linesOf, runCli } from '../support/cli.js';
import { shareCliProcess } from '../support/cli-process.js';

const runShared = shareCliProcess();

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'kloop-simulate-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('kloop simulate', () => {
  it.each([
    ['dgx-h100', 'operator', 323],
    ['sn40l', 'layer', 35],
    ['sn40l', 'looped', 4],
  ])('on %s, schedule %s: %i calls per token', async (machine, schedule, calls) => {
    const args = ['simulate', 'llama-3.1-8b', '--machine', machine, '--sockets', '8', '--schedule', schedule, '--json'];
    const { code, stdout } = await runShared(args);
    expect(code).toBe(0);
    const json = JSON.parse(stdout) as Record<string, unknown>;
    expect(json).toMatchObject({ model: 'llama-3.1-8b', machine, schedule, sockets: 8, calls_per_token: calls });
    const breakdown: number[] = Object.values(json['breakdown_us'] as Record<string, number>);
    expect(breakdown.reduce((a, b) => a + b, 0)).toBeCloseTo(json['tpot_us'] as number, 6);
    expect(json['tokens_per_second']).toBeCloseTo(1e6 / (json['tpot_us'] as number), 6);
    expect(json['bandwidth_fraction']).toBeGreaterThan(0.1);
    expect(json['bandwidth_fraction']).toBeLessThan(1);
  });

  it('divides a small model among fewer sockets, and says so; not where a number was asked for', async () => {
    const { code, stdout, stderr } = await runShared(['simulate', 'demo', '--machine', 'sn40l', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ sockets: 6 });
    expect(stderr).toBe('kloop: demo is divided among 6 sockets, since it cannot be among 16\n');
    const asked = await runShared(['simulate', 'demo', '--machine', 'sn40l', '--sockets', '16']);
    expect([asked.code, asked.stderr]).toEqual([1, expect.stringContaining('cannot be divided among 16 sockets')]);
  });

  it('takes a machine of the user, printed and changed', async () => {
    const printed = await runShared(['simulate', '--machine', 'sn40l', '--print-machine']);
    const machine = JSON.parse(printed.stdout) as { name: string; memory: { bandwidth: { value: number } } };
    machine.name = 'twice';
    machine.memory.bandwidth.value *= 2;
    const file = join(dir, 'twice.json');
    writeFileSync(file, JSON.stringify(machine));
    const time = async (name: string): Promise<number> => {
      const { stdout } = await runShared(['simulate', 'llama-3.1-8b', '--machine', name, '--sockets', '1', '--json']);
      return (JSON.parse(stdout) as { tpot_us: number }).tpot_us;
    };
    const [one, two] = [await time('sn40l'), await time(file)];
    expect(two / one).toBeGreaterThan(0.5);
    expect(two / one).toBeLessThan(0.55);
  });

  it('predicts for this machine where it has been measured, in the format that is asked for', async () => {
    const env = { XDG_CACHE_HOME: dir };
    const args = ['simulate', 'tinystories-15m', '--machine', 'host', '--json'];
    const missing = await runShared(args, env);
    expect(missing).toMatchObject({ code: 2, stdout: '' });
    expect(missing.stderr).toBe(
      'kloop: this machine has not been measured yet; run `kloop calibrate` once, a minute or two\n',
    );
    const printed = await runShared(['simulate', '--machine', 'h200', '--print-machine']);
    const machine = { ...(JSON.parse(printed.stdout) as object), name: 'host', maxSockets: 1, orchestration: 'host' };
    mkdirSync(join(dir, 'kloop'), { recursive: true });
    writeFileSync(join(dir, 'kloop', 'host-machine.json'), JSON.stringify(machine));
    const [bf16, q8] = await Promise.all([runShared(args, env), runShared([...args, '--quant', 'q8_0'], env)]);
    const json = [bf16, q8].map(({ stdout }) => JSON.parse(stdout) as Record<string, number | string>);
    expect(json[0]).toMatchObject({ machine: 'host', orchestration: 'host' });
    // 34 bytes for 32 weights, and a cache in bf16 in both.
    expect(Number(json[1]!['bytes_per_token'])).toBeLessThan(Number(json[0]!['bytes_per_token']) * 0.7);
    const explained = await runShared(['explain', 'tinystories-15m', '--machine', 'host'], env);
    expect(explained.stdout).toContain('looping the layers on 1 x NVIDIA H200');
  });

  it('sweeps in parallel, in order, as CSV', async () => {
    const list = Array.from({ length: 20 }, (_, i) => i + 1);
    const args = ['simulate', 'tinystories-15m', '--machine', 'sn40l', '--csv', '--sweep', `batch=${list.join()}`];
    const { code, stdout } = await runCli([...args, '--sweep', 'sockets=1,2,3,6', '--sweep', 'context=64']);
    expect(code).toBe(0);
    const [header, ...lines] = linesOf(stdout);
    expect(header).toBe(
      'sockets,batch,context,schedule,orchestration,tpot_us,tokens_per_second,bandwidth_fraction,calls_per_token,problem',
    );
    expect(lines.map((line) => line.split(',').slice(0, 2).map(Number))).toEqual(
      list.flatMap((batch) => [1, 2, 3, 6].map((sockets) => [sockets, batch])),
    );
  });

  it('a sweep says below the table what could not be simulated', async () => {
    const args = ['simulate', 'tinystories-15m', '--machine', 'dgx-h100', '--sweep', 'sockets=1,5'];
    const { code, stdout } = await runShared(args);
    expect(code).toBe(0);
    const [header, one, five, problem] = linesOf(stdout);
    expect(header).toMatch(/^sockets +us per token +tokens\/s +of peak bandwidth$/);
    expect(one).toMatch(/^ +1 +\d+ +\d+ +[\d.]+%$/);
    expect(five).toMatch(/^ +5 +- +- +-$/);
    expect(problem).toMatch(/^-: .*5 sockets/);
  });

  it('writes a trace, and draws a timeline', async () => {
    const file = join(dir, 'trace.json');
    const args = ['simulate', 'tinystories-15m', '--machine', 'sn40l', '--sockets', '1', '--context', '64'];
    const { code, stdout, stderr } = await runShared([...args, '--trace', file, '--timeline']);
    expect(code).toBe(0);
    expect(stderr).toContain(file);
    expect(stdout).toMatch(/not looped: a call for each layer[^]*memory +\|[^]*looped: the same/);
    expect(JSON.parse(readFileSync(file, 'utf8'))).toHaveProperty('traceEvents');
    const bad = await runShared([...args, '--trace', join(file, 'trace.json')]);
    expect(bad.code).toBe(1);
    expect(linesOf(bad.stderr)).toHaveLength(1);
  });

  it.skipIf(!existsSync('/dev/full'))('leaves no half of a trace, and writes where there is no file', async () => {
    const args = ['simulate', 'tinystories-15m', '--machine', 'sn40l', '--sockets', '1', '--context', '64', '--trace'];
    const file = join(dir, 'kept.json');
    writeFileSync(file, 'kept');
    // No file may be larger than 1 KiB.
    const { code, stderr } = await runCli([...args, file], {
      wrap: ['sh', '-c', 'trap "" XFSZ; ulimit -f 1; "$@"', 'sh'],
    });
    expect([code, linesOf(stderr)]).toEqual([1, [expect.stringContaining('kept.json: ')]]);
    expect(readFileSync(file, 'utf8')).toBe('kept');
    expect(readdirSync(dir).filter((name) => name.includes('kept'))).toEqual(['kept.json']);
    const full = await runShared([...args, '/dev/full']);
    expect([full.code, full.stderr]).toEqual([1, expect.stringContaining('/dev/full: no space left')]);
  });

  it.each([
    [['llama-3.1-8b'], 2, /--machine/],
    [['llama-3.1-8b', '--machine', 'cray'], 2, /no machine "cray"; use one of sn40l, dgx-h100, h200, host, or a/],
    [['no-such-model', '--machine', 'sn40l'], 1, /no-such-model/],
    [['llama-3.1-8b', '--machine', 'sn40l', '--sockets', '5'], 1, /5/],
    [['llama-3.1-8b', '--machine', 'sn40l', '--sweep', 'x'], 2, /--sweep x/],
    [['llama-3.1-405b', '--machine', 'dgx-h100'], 2, /needs .* has 80 GB/],
    [['llama-2-7b', '--machine', 'sn40l', '--context', '5000'], 2, /4096 positions/],
    [['--machine', 'sn40l'], 2, /which model\?; for example `kloop simulate llama-3\.1-8b --machine sn40l`/],
    [
      ['demo', '--machine', 'sn40l', '--sweep', 'batch=1', '--trace', 't.json'],
      2,
      /'--trace <file>' cannot be used with option '--sweep/,
    ],
    [['demo', '--machine', 'sn40l', '--sweep', 'batch=1', '--timeline'], 2, /'--timeline' cannot be used.*--sweep/],
    [['demo', '--machine', 'sn40l', '--timeline', '--json'], 2, /'--timeline' cannot be used.*'--json'/],
    [['demo', '--machine', 'sn40l', '--sweep', 'batch=1', '--csv', '--json'], 2, /'--csv' cannot be used.*'--json'/],
  ])('says in one line what is wrong: %j', async (args, code, message) => {
    const result = await runShared(['simulate', ...args]);
    expect(result.code).toBe(code);
    expect(linesOf(result.stderr)).toHaveLength(1);
    expect(result.stderr).toMatch(message);
  });

  it('models that are only priced are not run', async () => {
    const priced = await runShared(['simulate', 'mixtral-8x7b', '--machine', 'sn40l', '--json']);
    expect(priced.code).toBe(0);
    const others = [
      ['run', '--prompt', 'x'],
      ['chat'],
      ['serve'],
      ['explain'],
      ['bench'],
      ['synth', '--out', join(dir, 'priced')],
    ];
    for (const [verb = '', ...flags] of others) {
      const { code, stderr } = await runShared([verb, 'mixtral-8x7b', ...flags]);
      expect([code, stderr]).toEqual([
        1,
        'kloop: mixtral-8x7b is only priced, there is no program for it; run `kloop simulate mixtral-8x7b --machine sn40l`\n',
      ]);
    }
  });
});

describe('kloop explain --machine', () => {
  it('says what looping gives there, and why', async () => {
    const args = ['explain', 'llama-3.2-1b', '--schedule', 'looped', '--sockets', '8', '--machine', 'sn40l'];
    const { code, stdout } = await runShared(args);
    expect(code).toBe(0);
    expect(stdout).toMatch(/looping the layers on 8 x SambaNova SN40L: \d\.\d+x .*simulated/);
    const json = await runShared([...args, '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({
      calls_per_token: 4,
      advice: [expect.any(String), expect.any(String)],
    });
  });
});

describe('kloop reproduce', () => {
  it('exits with 1 exactly when a threshold is missed', async () => {
    const figures = join(dir, 'figures');
    const { code, stdout, stderr } = await runCli(['reproduce', '--json', '--svg', figures]);
    const { rows, thresholds } = JSON.parse(stdout) as {
      rows: { figure: string; published: number; ours: number; error: number; kind: string }[];
      thresholds: { name: string; met: boolean }[];
    };
    const missed = thresholds.filter(({ met }) => !met);
    expect(code).toBe(missed.length === 0 ? 0 : 1);
    expect(linesOf(stderr).slice(1)).toEqual(
      missed.map(({ name }) => expect.stringMatching(new RegExp(`^kloop: missed: ${name}: .*%, limit .*%`)) as unknown),
    );
    for (const { figure, published, ours, error } of rows) {
      expect((ours / published - 1) * 100, figure).toBeCloseTo(error, 9);
    }
    expect(readFileSync(join(figures, 'speedup.svg'), 'utf8')).toContain('<svg');
  });

  it('docs/simulator.md has the tables as the command prints them', async () => {
    const { stdout } = await runShared(['reproduce', '--markdown']);
    const docs = readFileSync(new URL('../../docs/simulator.md', import.meta.url), 'utf8');
    const squeeze = (text: string): string => text.replaceAll(/[ -]+/g, ' ');
    expect(squeeze(docs)).toContain(squeeze(stdout.trim()));
  });
});
