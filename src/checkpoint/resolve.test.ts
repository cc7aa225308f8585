import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CheckpointError, UsageError } from '../util/errors.js';
import { hubCacheDir, hubEndpoint, hubToken } from './hub/settings.js';
import { resolveModel } from './resolve.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kloop-resolve-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe('resolveModel', () => {
  const sha = 'ab'.repeat(20);
  const find = (spec: string) => resolveModel(spec, { cacheDir: dir });

  it('knows the demo of the package, which lies beside package.json', () => {
    expect(find('demo')).toBe(resolve('demo'));
    expect(existsSync(join(find('demo'), '..', 'package.json'))).toBe(true);
  });

  it('takes directories as they are', () => {
    expect(find(dir)).toBe(dir);
    expect(find('src/checkpoint')).toBe(resolve('src/checkpoint'));
  });

  it('takes GGUF files as they are', () => {
    const file = join(dir, 'model.GGUF');
    writeFileSync(file, '');
    expect(find(file)).toBe(file);
    expect(() => find(join(dir, 'other.gguf'))).toThrow(/other.gguf: no such file; give a model directory/);
  });

  it('finds pulled models by their ref', () => {
    const folder = join(dir, 'models--acme--tiny');
    mkdirSync(join(folder, 'refs'), { recursive: true });
    mkdirSync(join(folder, 'snapshots', sha), { recursive: true });
    writeFileSync(join(folder, 'refs', 'main'), `${sha}\n`);
    expect(find('acme/tiny')).toBe(join(folder, 'snapshots', sha));
    writeFileSync(join(folder, 'refs', 'main'), '../../../../etc');
    expect(() => find('acme/tiny')).toThrow(CheckpointError);
    writeFileSync(join(folder, 'refs', 'main'), 'cd'.repeat(20));
    expect(() => find('acme/tiny')).toThrow(/run `kloop pull acme\/tiny`/);
  });

  it('refuses no name', () => {
    expect(() => find('')).toThrow(UsageError);
  });

  it.each([
    ['acme/other', /run `kloop pull acme\/other`/],
    ['acme/other@../x', /run `kloop pull/],
    ['llama-3.2-1b', /is a preset.*`kloop synth llama-3.2-1b --out DIR`.*`kloop pull meta-llama\/Llama-3.2-1B`/],
    ['nothing', /no such directory.*kloop pull OWNER\/NAME.*kloop presets/],
    ['./src/index.ts', /is a file, and neither a directory nor a \.gguf file; give a model directory/],
    ['src/index.ts', /is a file/],
    ['a\0b', /no such directory/],
    ['package.json', /is a file/],
  ])('says what to do about %j', (spec, message) => {
    expect(() => find(spec)).toThrow(CheckpointError);
    expect(() => find(spec)).toThrow(message);
  });
});

describe('settings', () => {
  it('look for the cache in the order of the Hub tools', () => {
    const all = { HF_HUB_CACHE: '/a', HF_HOME: '/b', XDG_CACHE_HOME: '/c' };
    expect(hubCacheDir(all)).toBe('/a');
    expect(hubCacheDir({ ...all, HF_HUB_CACHE: '' })).toBe('/b/hub');
    expect(hubCacheDir({ XDG_CACHE_HOME: '/c' })).toBe('/c/huggingface/hub');
    expect(hubCacheDir({})).toBe(join(homedir(), '.cache', 'huggingface', 'hub'));
    expect(hubCacheDir({ HF_HOME: '~/x' })).toBe(join(homedir(), 'x', 'hub'));
  });

  it('take the token of the environment before the stored one', () => {
    writeFileSync(join(dir, 'token'), 'hf_stored\n');
    expect(hubToken({ HF_HOME: dir })).toBe('hf_stored');
    expect(hubToken({ HF_HOME: dir, HF_TOKEN: 'hf_env' })).toBe('hf_env');
    expect(hubToken({ HF_TOKEN_PATH: join(dir, 'none') })).toBeUndefined();
  });

  it('keep away from the network where the environment says so', () => {
    for (const value of ['1', 'true', 'YES']) {
      expect(() => hubEndpoint({ HF_HUB_OFFLINE: value })).toThrow(/HF_HUB_OFFLINE is set; unset it/);
    }
    expect(hubEndpoint({ HF_HUB_OFFLINE: '0', HF_ENDPOINT: 'http://mirror' })).toBe('http://mirror');
  });

  it('check the address', () => {
    expect(hubEndpoint({})).toBe('https://huggingface.co');
    expect(hubEndpoint({ HF_ENDPOINT: 'http://mirror/' })).toBe('http://mirror');
    expect(() => hubEndpoint({ HF_ENDPOINT: 'ftp://x' })).toThrow(UsageError);
    // What such an address holds must not come into a message, nor into one of the network.
    for (const address of ['https://user:secret@mirror', 'ftp://secret@mirror', 'https://mirror/?token=secret']) {
      expect(() => hubEndpoint({ HF_ENDPOINT: address })).toThrow(/^(?!.*secret).*the Hub address .*HF_TOKEN/);
    }
  });
});
