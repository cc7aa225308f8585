import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FakeFile, FakeHub, FakeHubOptions, Misbehaviour } from '../../../tests/support/hub-server.js';
import { commit, cutAfter, gitSha1, sha256, startHub } from '../../../tests/support/hub-server.js';
import { AbortedError, DownloadError, KloopError, StorageError, UsageError } from '../../util/errors.js';
import { resolveModel } from '../resolve.js';
import type { PullOptions, PullProgress } from './pull.js';
import { pullModel } from './pull.js';

let cacheDir: string;
let hub: FakeHub | undefined;
beforeEach(() => {
  cacheDir = mkdtempSync(join(tmpdir(), 'kloop-pull-'));
});
afterEach(async () => {
  await hub?.close();
  hub = undefined;
  rmSync(cacheDir, { recursive: true, force: true });
});

const weights = randomBytes(300_000);
const small = (text: string): FakeFile => ({ content: Buffer.from(text) });
const files: Record<string, FakeFile> = {
  'config.json': small('{"model_type":"llama"}'),
  'tokenizer.json': small('{}'),
  'model.safetensors': { content: weights, lfs: true },
};
const weightsBlob = () => join(cacheDir, 'models--acme--tiny', 'blobs', sha256(weights));

async function pull(options: Partial<FakeHubOptions> = {}, pullOptions: PullOptions = {}): Promise<string> {
  hub ??= await startHub({ files, ...options });
  const defaults = { endpoint: hub.endpoint, cacheDir, token: 'hf_x', retryDelayMs: 1, idleTimeoutMs: 5000 };
  return pullModel('acme/tiny', { ...defaults, ...pullOptions });
}
/** Asks the misbehaviour only for the weights. */
const onWeights =
  (misbehave: Misbehaviour): Misbehaviour =>
  (request, response) =>
    request.name === 'model.safetensors' && misbehave(request, response);

describe('a pull', () => {
  it('fills the standard cache layout', async () => {
    const snapshot = await pull({
      files: {
        ...files,
        'README.md': small('no'),
        'pytorch_model.bin': small('no'),
        'consolidated.safetensors': small('no'),
        'tokenizer_config.json': small('{"a":1}'),
        'chat_template.jinja': small('{{ x }}'),
      },
    });
    const folder = join(cacheDir, 'models--acme--tiny');
    expect(snapshot).toBe(join(folder, 'snapshots', commit));
    expect(readFileSync(join(folder, 'refs', 'main'), 'utf8')).toBe(commit);
    const names = [
      'chat_template.jinja',
      'config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ];
    expect(readdirSync(snapshot).sort()).toEqual(names);
    expect(readlinkSync(join(snapshot, 'model.safetensors'))).toBe(`../../blobs/${sha256(weights)}`);
    expect(readlinkSync(join(snapshot, 'tokenizer.json'))).toBe(`../../blobs/${gitSha1(Buffer.from('{}'))}`);
    expect(readFileSync(join(snapshot, 'model.safetensors')).equals(weights)).toBe(true);
    expect(readdirSync(join(folder, 'blobs'))).toHaveLength(5);
    expect(readdirSync(join(cacheDir, '.locks', 'models--acme--tiny'))).toEqual([]);
    expect(resolveModel('acme/tiny', { cacheDir })).toBe(snapshot);
    expect(hub!.seen.every(({ authorization }) => authorization === 'Bearer hf_x')).toBe(true);
  });

  it('does not fetch again what is there', async () => {
    await pull();
    const before = hub!.seen.length;
    const progress: PullProgress[] = [];
    await pull({}, { onProgress: (p) => progress.push(p) });
    expect(hub!.seen.slice(before).filter(({ path }) => path.includes('/resolve/'))).toEqual([]);
    const total = weights.length + 24;
    expect(progress.at(-1)).toEqual({ doneBytes: total, totalBytes: total });
  });

  it('takes the shards that the index names, and no others', async () => {
    const shard = (n: number) => ({ content: randomBytes(1000 + n), lfs: true });
    const map = { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' };
    const index = small(JSON.stringify({ weight_map: map }));
    const sharded = { ...files, 'model.safetensors.index.json': index, [map.a]: shard(1), [map.b]: shard(2) };
    const snapshot = await pull({ files: sharded });
    expect(readdirSync(snapshot).filter((name) => name.endsWith('.safetensors'))).toEqual([map.a, map.b]);
    await hub!.close();
    hub = undefined;
    rmSync(cacheDir, { recursive: true });
    const broken = { ...sharded, 'model.safetensors.index.json': small('{"weight_map":{"a":"../../x.safetensors"}}') };
    await expect(pull({ files: broken })).rejects.toThrow(/names "..\/..\/x.safetensors", which is not there/);
  });

  it('of a revision is found by it', async () => {
    const snapshot = await pull({}, { revision: 'refs/pr/1' });
    expect(resolveModel('acme/tiny@refs/pr/1', { cacheDir })).toBe(snapshot);
    expect(resolveModel(`acme/tiny@${commit}`, { cacheDir })).toBe(snapshot);
    expect(() => resolveModel('acme/tiny', { cacheDir })).toThrow(/run `kloop pull acme\/tiny`/);
  });
});

describe('broken connections', () => {
  it('are resumed where they broke, within a run', async () => {
    const snapshot = await pull({
      misbehave: onWeights(
        ({ start, content, count }, response) => count <= 3 && cutAfter(50_000, start, content, response),
      ),
    });
    expect(readFileSync(join(snapshot, 'model.safetensors')).equals(weights)).toBe(true);
    const ranges = hub!.ranges('model.safetensors');
    expect(ranges).toEqual([undefined, 'bytes=50000-', 'bytes=100000-', 'bytes=150000-']);
  });

  it('are resumed by the next run, which asks only for the rest', async () => {
    mkdirSync(join(cacheDir, 'models--acme--tiny', 'blobs'), { recursive: true });
    writeFileSync(`${weightsBlob()}.incomplete`, weights.subarray(0, 123_456));
    const snapshot = await pull();
    expect(hub!.ranges('model.safetensors')).toEqual(['bytes=123456-']);
    expect(readFileSync(join(snapshot, 'model.safetensors')).equals(weights)).toBe(true);
  });

  it('begin again with a server that ignores Range', async () => {
    const snapshot = await pull({
      ignoreRange: true,
      misbehave: onWeights(({ content, count }, response) => count === 1 && cutAfter(50_000, 0, content, response)),
    });
    expect(hub!.ranges('model.safetensors')).toEqual([undefined, 'bytes=50000-']);
    expect(readFileSync(join(snapshot, 'model.safetensors')).equals(weights)).toBe(true);
  });

  it.each([
    [416, {}],
    [206, { 'content-range': 'bytes 7-299999/300000' }],
    [206, { 'content-range': `bytes 1000-${2 ** 40}/${2 ** 40 + 1}` }],
    [206, {}],
  ])('begin again after a wrong part (%s, %j)', async (status, headers) => {
    mkdirSync(join(cacheDir, 'models--acme--tiny', 'blobs'), { recursive: true });
    writeFileSync(`${weightsBlob()}.incomplete`, weights.subarray(0, 1000));
    await pull({
      misbehave: onWeights(({ count }, response) => {
        if (count === 1) response.writeHead(status, headers).end('x');
        return count === 1;
      }),
    });
    expect(readFileSync(weightsBlob()).equals(weights)).toBe(true);
  });

  it('are given up after several attempts without a byte, and leave the ref unwritten', async () => {
    const failing = pull({
      misbehave: onWeights(({ start, content }, response) => cutAfter(0, start, content, response)),
    });
    await expect(failing).rejects.toThrow(DownloadError);
    await expect(failing).rejects.toThrow(/given up after 5 attempts; check the network/);
    expect(() => resolveModel('acme/tiny', { cacheDir })).toThrow(KloopError);
  });

  it('that stay silent are given up', async () => {
    // Never answers, and later never goes on.
    const silent = onWeights(({ content, count }, response) => {
      if (count > 1) response.writeHead(200, { 'content-length': content.length }).write('x');
      return true;
    });
    await expect(pull({ misbehave: silent }, { idleTimeoutMs: 50 })).rejects.toThrow(/given up after/);
  });

  it('that are slow are waited for', async () => {
    const slow = onWeights(async ({ content }, response) => {
      response.writeHead(200, { 'content-length': content.length });
      for (let at = 0; at < content.length; at += 30_000) {
        response.write(content.subarray(at, at + 30_000));
        await new Promise((resolve) => setTimeout(resolve, 60));
      }
      response.end();
      return true;
    });
    await pull({ misbehave: slow }, { idleTimeoutMs: 400 });
    expect(hub!.ranges('model.safetensors')).toHaveLength(1);
  });

  it('are repeated after 429 and 503', async () => {
    await pull({
      misbehave: onWeights(({ count }, response) => {
        if (count <= 2) response.writeHead(count === 1 ? 429 : 503, { 'retry-after': '0' }).end();
        return count <= 2;
      }),
    });
    expect(hub!.ranges('model.safetensors')).toHaveLength(3);
  });
});

describe('wrong bytes', () => {
  it('are thrown away and fetched once more', async () => {
    const wrong = Buffer.alloc(weights.length);
    await pull({
      misbehave: onWeights(({ count }, response) => {
        if (count === 1) response.end(wrong);
        return count === 1;
      }),
    });
    expect(hub!.ranges('model.safetensors')).toEqual([undefined, undefined]);
    expect(readFileSync(weightsBlob()).equals(weights)).toBe(true);
  });

  it.each(['model.safetensors', 'config.json'])('twice are an error, and none of them stay: %s', async (name) => {
    const failing = pull({
      misbehave: (request, response) => {
        if (request.name === name) response.end(Buffer.alloc(request.content.length));
        return request.name === name;
      },
    });
    await expect(failing).rejects.toThrow(DownloadError);
    await expect(failing).rejects.toThrow(/do not match their hash/);
    expect(hub!.ranges(name)).toHaveLength(2);
    const blobs = readdirSync(join(cacheDir, 'models--acme--tiny', 'blobs'));
    expect(
      blobs.some((blob) => blob.startsWith(name === 'config.json' ? gitSha1(files[name]!.content) : sha256(weights))),
    ).toBe(false);
  });

  it('beyond the announced size are refused', async () => {
    const more = Buffer.concat([weights, weights]);
    const endless = onWeights((_, response) => {
      response.end(more);
      return true;
    });
    await expect(pull({ misbehave: endless })).rejects.toThrow(/sends more than the 300000 bytes/);
  });
});

describe('answers that end it', () => {
  it.each([
    [401, /not without a valid token .*set HF_TOKEN/],
    [403, /access is restricted .*accept the conditions/],
    [404, /not found .*check owner, name and revision/],
    [418, /status 418/],
  ])('%s', async (status, message) => {
    const failing = pull({ token: 'other', status });
    await expect(failing).rejects.toThrow(DownloadError);
    await expect(failing).rejects.toThrow(message);
    expect(hub!.seen).toHaveLength(1);
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  it.each([
    ['a file above', [{ type: 'file', path: '../x.safetensors', size: 1, oid: 'a'.repeat(40) }], /names a file "..\/x/],
    ['an absolute file', [{ type: 'file', path: '/etc/x', size: 1, oid: 'a'.repeat(40) }], /names a file "\/etc/],
    ['a backslash', [{ type: 'file', path: '..\\x', size: 1, oid: 'a'.repeat(40) }], /names a file/],
    [
      'a hash that is a path',
      [{ type: 'file', path: 'tokenizer_config.json', size: 1, oid: '../../x' }],
      /names a hash/,
    ],
    ['no hash', [{ type: 'file', path: 'tokenizer_config.json', size: 1 }], /names a hash undefined/],
    [
      'a negative size',
      [{ type: 'file', path: 'tokenizer_config.json', size: -1, oid: 'a'.repeat(40) }],
      /a size of -1/,
    ],
    ['no entry', [null], undefined],
  ])('the list has %s', async (_, extraEntries, message) => {
    const result = pull({ extraEntries });
    if (message === undefined) await expect(result).resolves.toContain(commit);
    else await expect(result).rejects.toThrow(message);
  });

  it('the commit is a path, the list goes to another host or never ends, the answer is no JSON', async () => {
    const failing = async (options: Partial<FakeHubOptions>) => {
      await hub?.close();
      hub = undefined;
      return pull(options);
    };
    await expect(failing({ revision: { sha: '../../etc' } })).rejects.toThrow(/names commit "..\/..\/etc"/);
    await expect(failing({ link: () => '<http://127.0.0.2:1/x>; rel="next"' })).rejects.toThrow(/another host/);
    await expect(failing({ revision: 'x' })).rejects.toThrow(DownloadError);
    await expect(failing({ files: { 'config.json': small('') } })).rejects.toThrow(/no tokenizer.json/);
    const bare = { 'config.json': small('{}'), 'tokenizer.json': small('{}') };
    await expect(failing({ files: bare })).rejects.toThrow(/no model.safetensors/);
  });

  it('a list that leads back to itself', async () => {
    await expect(pull({ link: (address) => `<${address}>; rel="next"` })).rejects.toThrow(/does not end/);
  });
});

it('a redirect to a storage host is followed without the token', async () => {
  const storage = await startHub({ files });
  const { endpoint } = storage;
  const snapshot = await pull({
    misbehave: onWeights(({ name }, response) => {
      response.writeHead(302, { location: `${endpoint}/acme/tiny/resolve/${commit}/${name}` }).end();
      return true;
    }),
  });
  expect(readFileSync(join(snapshot, 'model.safetensors')).equals(weights)).toBe(true);
  expect(storage.seen.map(({ authorization }) => authorization)).toEqual([undefined]);
  await storage.close();
});

describe('names and settings', () => {
  it.each(['tiny', '../x', 'a/../b', 'a--b/c', 'a/b/c', '/a/b', 'a/b\n', ''])('%j is not a model', async (repo) => {
    await expect(pullModel(repo, { cacheDir, endpoint: 'http://127.0.0.1:1' })).rejects.toThrow(UsageError);
  });

  it.each(['../main', '/main', 'a//b', 'a b', ''])('%j is not a revision', async (revision) => {
    await expect(pull({}, { revision })).rejects.toThrow(UsageError);
  });

  it('refuses other addresses and unusable tokens', async () => {
    await expect(pullModel('a/b', { cacheDir, endpoint: 'file:///etc' })).rejects.toThrow(UsageError);
    await expect(pull({}, { token: 'hf_x\r\nx: y' })).rejects.toThrow(UsageError);
  });
});

describe('this machine', () => {
  it('a stop ends the download at once, and the next run goes on', async () => {
    const controller = new AbortController();
    const stuck = pull(
      {
        misbehave: onWeights(
          ({ content, count }, response) => count === 1 && response.writeHead(200).write(content.subarray(0, 1000)),
        ),
      },
      { signal: controller.signal, onProgress: ({ doneBytes }) => doneBytes > 1000 && controller.abort() },
    );
    await expect(stuck).rejects.toThrow(AbortedError);
    await pull();
    expect(hub!.ranges('model.safetensors')).toEqual([undefined, 'bytes=1000-']);
  });

  it('two pulls at once fetch each file once', async () => {
    hub = await startHub({ files });
    const [one, two] = await Promise.all([pull(), pull()]);
    expect(one).toBe(two);
    for (const name of Object.keys(files)) expect(hub.ranges(name)).toEqual([undefined]);
  });

  it('a lock of a process that is gone is taken over', async () => {
    const locks = join(cacheDir, '.locks', 'models--acme--tiny');
    mkdirSync(locks, { recursive: true });
    // No process has this id: it is above the largest that Linux gives.
    writeFileSync(join(locks, `${sha256(weights)}.kloop.lock`), `${2 ** 30} ${hostname()}`);
    await pull();
    expect(readFileSync(weightsBlob()).equals(weights)).toBe(true);
  });

  it('a cache that cannot be written is a StorageError', async () => {
    const file = join(cacheDir, 'file');
    writeFileSync(file, '');
    await expect(pull({}, { cacheDir: join(file, 'cache') })).rejects.toThrow(StorageError);
  });
});
