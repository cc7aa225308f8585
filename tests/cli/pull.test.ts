import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { linesOf, runCli, type CliResult } from '../support/cli.js';
import { startHub, type FakeHub } from '../support/hub-server.js';
import { writeTinyModel } from '../support/tiny-model.js';

describe('kloop pull', () => {
  let hub: FakeHub;
  let home: string;
  beforeAll(async () => {
    home = mkdtempSync(join(tmpdir(), 'kloop-hub-'));
    const model = await writeTinyModel();
    const files = readdirSync(model.path).map((name) => {
      return [name, { content: readFileSync(join(model.path, name)), lfs: name.endsWith('.safetensors') }] as const;
    });
    hub = await startHub({ files: Object.fromEntries(files) });
    model.remove();
  });
  afterAll(async () => {
    await hub.close();
    rmSync(home, { recursive: true, force: true });
  });

  const run = (...args: string[]): Promise<CliResult> =>
    runCli(args, { env: { HF_HOME: home, HF_ENDPOINT: hub.endpoint, HF_TOKEN: '' } });

  it('downloads a model that can be run by its name then', async () => {
    const prompt = ['run', 'acme/tiny', '--prompt', 'x', '--max-tokens', '4', '--backend', 'reference', '--json'];
    const before = await run(...prompt);
    expect([before.code, before.stdout]).toEqual([1, '']);
    expect(before.stderr).toMatch(/^kloop: acme\/tiny: .*run `kloop pull acme\/tiny`\n$/);

    const pulled = await run('pull', 'acme/tiny');
    expect(pulled.code).toBe(0);
    expect(readdirSync(pulled.stdout.trim())).toContain('config.json');

    const { code, stdout } = await run(...prompt);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ finish_reason: 'length', backend: 'reference' });
  });

  it('says in one line what is wrong', async () => {
    const wrong = await run('pull', 'tiny');
    expect([wrong.code, wrong.stdout]).toEqual([2, '']);
    expect(wrong.stderr).toMatch(/^kloop: .*OWNER\/NAME[^\n]*\n$/);
    const revision = await run('pull', 'acme/tiny', '--revision', 'a b');
    expect([revision.code, revision.stdout]).toEqual([2, '']);
    expect(linesOf(revision.stderr)).toHaveLength(1);
  });
});
