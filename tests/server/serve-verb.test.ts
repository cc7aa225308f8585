/** `kloop serve` as a process: what it prints, refuses, and how it ends. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { linesOf, runCli } from '../support/cli.js';
import { complete, startServe } from '../support/serve-process.js';
import { writeTinyModel, type TinyModel } from '../support/tiny-model.js';

describe('kloop serve', () => {
  let model: TinyModel;
  let directory: string;
  beforeAll(async () => {
    model = await writeTinyModel({ chat: true });
    directory = mkdtempSync(join(tmpdir(), 'kloop-serve-'));
  });
  afterAll(() => {
    model.remove();
    rmSync(directory, { recursive: true, force: true });
  });

  const serve = (...args: string[]) => startServe([model.path, '--backend', 'reference', ...args]);

  it('answers, finishes at SIGTERM what it has begun, and returns 0', async () => {
    const { url, child, ended } = await serve();
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    const stream = await complete(url, { max_tokens: 100, ignore_eos: true, stream: true });
    child.kill('SIGTERM');
    expect((await stream.text()).endsWith('data: [DONE]\n\n')).toBe(true);
    const { code, stdout, stderr } = await ended;
    expect([code, stdout]).toEqual([0, '']);
    const messages = linesOf(stderr).map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect(messages).toEqual(['loading', 'loaded', 'listening', 'request', 'stopping', 'texts made', 'stopped']);
  });

  it('ends at once at the second signal', async () => {
    const { url, child, ended } = await serve('--drain-time', '1000');
    const stream = await complete(url, { max_tokens: 100, ignore_eos: true, stream: true });
    child.kill('SIGTERM');
    child.kill('SIGINT');
    expect(await stream.text()).toContain('shutting_down');
    expect((await ended).code).toBe(0);
  });

  it('wants the key of its file', async () => {
    const file = join(directory, 'key');
    writeFileSync(file, 'a-long-secret\n');
    const { url, child, ended } = await serve('--api-key-file', file);
    expect((await complete(url, {})).status).toBe(401);
    expect((await complete(url, { max_tokens: 2 }, { authorization: 'Bearer a-long-secret' })).status).toBe(200);
    child.kill('SIGTERM');
    expect((await ended).stderr).not.toContain('secret');
  });

  it('knows hosts and origins however they are written', async () => {
    const { url, child, ended } = await serve(
      '--allow-host',
      'LLM.example.org',
      '--allow-origin',
      'https://Example.org/',
    );
    const asked = (headers: Record<string, string>) =>
      new Promise<number | undefined>((resolve, reject) => {
        get(`${url}/v1/models`, { headers }, (response) => resolve(response.resume().statusCode)).on('error', reject);
      });
    expect(await asked({ host: 'llm.example.org' })).toBe(200);
    expect(await asked({ origin: 'https://example.org' })).toBe(200);
    expect(await asked({ origin: 'https://example.com' })).toBe(403);
    child.kill('SIGTERM');
    await ended;
  });

  it.each([
    ['other machines without a key', ['--host', '0.0.0.0'], /no API key; set a key, or say --insecure/],
    [
      'a key file that is not there',
      ['--api-key-file', '/nowhere/key'],
      /^kloop: the API key cannot be read from \/nowhere\/key: there is no such file; give a file that holds it$/,
    ],
    [
      'an origin that is none',
      ['--allow-origin', 'example.org'],
      /'example.org' is invalid. It must be \* or an origin/,
    ],
    ['a page for an origin', ['--allow-origin', 'https://a.org/page'], /It must be \* or an origin/],
    [
      'a host with a port',
      ['--allow-host', 'a.org:80'],
      /'a.org:80' is invalid. It must be \* or a name without a port/,
    ],
    ['a prefix that is none', ['--metrics-prefix', 'a b'], /--metrics-prefix is/],
    ['a port that is none', ['--port', '70000'], /from 0 to 65535/],
  ])('refuses %s', async (_, args, message) => {
    const { code, stderr } = await runCli(['serve', model.path, '--backend', 'reference', ...args]);
    expect(code).toBe(2);
    expect(linesOf(stderr).at(-1)).toMatch(message);
  });

  it('refuses an empty key', async () => {
    const { code, stderr } = await runCli(['serve', model.path], { env: { KLOOP_API_KEY: '' } });
    expect([code, stderr]).toEqual([2, expect.stringContaining('8 to 512')]);
  });
});
