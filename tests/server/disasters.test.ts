/** What happens around a server: it is killed, its models are removed, its disk is full. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readdirSync, renameSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { linesOf, runCli } from '../support/cli.js';
import { complete, startServe, type Served } from '../support/serve-process.js';
import { writeTinyModel, type TinyModel } from '../support/tiny-model.js';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

async function tinyModel(seed: number): Promise<TinyModel> {
  const model = await writeTinyModel({ seed });
  cleanups.push(() => model.remove());
  return model;
}

function temporary(): string {
  const path = mkdtempSync(join(tmpdir(), 'kloop-disaster-'));
  cleanups.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function serve(...parameters: Parameters<typeof startServe>): Promise<Served> {
  const served = await startServe(...parameters);
  cleanups.push(() => {
    served.child.kill('SIGKILL');
    return served.ended;
  });
  return served;
}

const greedy = { max_tokens: 8, temperature: 0, ignore_eos: true };

async function textOf(response: Response): Promise<string> {
  const body = (await response.json()) as { choices: { text: string }[] };
  expect(response.status, JSON.stringify(body)).toBe(200);
  return body.choices[0]!.text;
}

it('a server that was killed, loading or answering, starts again in the same cache', async () => {
  const { path } = await tinyModel(1);
  const env = { XDG_CACHE_HOME: temporary() };
  const args = [path, '--threads', '1', '--context', '128'];
  // Weights are packed and kernels compiled between these two lines.
  const { stderr } = await runCli(['serve', '--port', '0', ...args], {
    env,
    onStderr: (text, child) => text.includes('"loading"') && setTimeout(() => child.kill('SIGKILL'), 150),
  });
  expect(stderr).not.toContain('"loaded"');
  const first = await serve(args, { env });
  const text = await textOf(await complete(first.url, greedy));
  const stream = await complete(first.url, { ...greedy, max_tokens: 100, stream: true });
  first.child.kill('SIGKILL');
  await expect(stream.text()).rejects.toThrow();
  const second = await serve(args, { env });
  expect(await textOf(await complete(second.url, greedy))).toBe(text);
  // One library, one packed file, and at most what the first one had begun.
  const files = readdirSync(join(env.XDG_CACHE_HOME, 'kloop')).filter((name) => !name.startsWith('.'));
  expect(files.map((name) => name.replace(/^.*\./, '')).sort()).toEqual(['bin', 'so']);
});

it('a model whose files are removed is served on if it is loaded, and else is a 503 until they are back', async () => {
  const [a, b] = [await tinyModel(1), await tinyModel(2)];
  const away = join(temporary(), 'other');
  const other = join(temporary(), 'other');
  renameSync(b.path, other);
  const { url } = await serve([a.path, other, '--backend', 'reference']);
  const before = await textOf(await complete(url, greedy));
  a.remove();
  renameSync(other, away);
  expect(await textOf(await complete(url, greedy))).toBe(before);
  const refused = await complete(url, { ...greedy, model: 'other' });
  expect([refused.status, await refused.json()]).toMatchObject([503, { error: { code: 'model_not_loaded' } }]);
  renameSync(away, other);
  expect(await textOf(await complete(url, { ...greedy, model: 'other' }))).not.toBe('');
});

const diskSize = 16 * 2 ** 20;
const mountDisk = `mount -t tmpfs -o size=${diskSize} tmpfs "$0" && exec "$@"`;
/** Runs the command that follows with a disk of its own at a path. */
const onDisk = (path: string) => ['-rm', 'sh', '-c', mountDisk, path];
/** Not where users may have no namespaces. */
const hasDisks = spawnSync('unshare', [...onDisk('/mnt'), 'true'], { timeout: 10_000 }).status === 0;

/** Writes a file until nothing more fits on the disk that `onDisk` gave. */
function fill(file: string): void {
  const handle = openSync(file, 'w');
  try {
    expect(() => {
      for (let written = 0; written < diskSize; written += 4096) writeSync(handle, Buffer.alloc(4096));
    }).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
  } finally {
    closeSync(handle);
  }
}

it.runIf(hasDisks)('a full disk is a 503 for the model that needs it, and for nobody else', async ({ skip }) => {
  const [a, b] = [await tinyModel(1), await tinyModel(2)];
  const other = join(temporary(), 'other');
  renameSync(b.path, other);
  const cache = temporary();
  const args = ['--backend', 'cpu', '--threads', '1', '--context', '128'];
  const { url, child, ended } = await serve([a.path, other, ...args], {
    env: { XDG_CACHE_HOME: cache },
    wrap: ['unshare', ...onDisk(cache)],
  });
  const disk = `/proc/${child.pid}/root${cache}`;
  const { blocks, bsize } = statfsSync(disk);
  skip(blocks * bsize > diskSize, 'the disk of another process is not seen from here');
  const before = await textOf(await complete(url, greedy));
  fill(join(disk, 'filler'));
  const inUse = readdirSync(join(disk, 'kloop'));
  const refused = await complete(url, { ...greedy, model: 'other' });
  expect([refused.status, await refused.json()]).toMatchObject([503, { error: { code: 'model_not_loaded' } }]);
  expect(readdirSync(join(disk, 'kloop'))).toEqual(inUse);
  expect(await textOf(await complete(url, greedy))).toBe(before);
  rmSync(join(disk, 'filler'));
  expect(await textOf(await complete(url, { ...greedy, model: 'other' }))).not.toBe(before);
  child.kill('SIGTERM');
  const { code, stderr } = await ended;
  expect(code).toBe(0);
  const failure = linesOf(stderr).find((line) => line.includes('loading failed'));
  expect(failure).toMatch(/no space left on the disk; free some space/);
});
