import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { afterAll, expect, test } from 'vitest';
import { defaultBufferBytes, lastLevelCacheBytes, measureReadBandwidth, openBandwidthMeter } from './bandwidth.js';
import { findCompiler } from './toolchain.js';

const directory = mkdtempSync(join(tmpdir(), 'kloop-bandwidth-'));
afterAll(() => rmSync(directory, { recursive: true }));

const mib = 2 ** 20;

test('the buffer is 1 GiB, more for large caches, and never much of what is free', () => {
  expect(defaultBufferBytes(64 * 1024 * mib, 32 * mib)).toBe(1024 * mib);
  expect(defaultBufferBytes(64 * 1024 * mib, 512 * mib)).toBe(2048 * mib);
  expect(defaultBufferBytes(1024 * mib, 512 * mib)).toBe(256 * mib);
  expect(defaultBufferBytes(0, 0)).toBe(mib);
});

test('last-level caches are counted once each, whoever shares them', () => {
  const write = (cpu: number, index: number, level: number, size: string, shared: string): void => {
    const path = join(directory, 'cpu', `cpu${cpu}`, 'cache', `index${index}`);
    mkdirSync(path, { recursive: true });
    const files = { level, size, shared_cpu_list: shared };
    for (const [name, value] of Object.entries(files)) writeFileSync(join(path, name), `${value}\n`);
  };
  for (const cpu of [0, 1, 2, 3]) {
    write(cpu, 0, 1, '48K', String(cpu));
    write(cpu, 3, 3, '32M', cpu < 2 ? '0-1' : '2-3');
  }
  expect(lastLevelCacheBytes(join(directory, 'cpu'))).toBe(64 * mib);
  expect(lastLevelCacheBytes(join(directory, 'nothing'))).toBe(0);
});

const compiler = await findCompiler();

test.runIf(compiler !== undefined)('measures passes until it is closed', async () => {
  const meter = await openBandwidthMeter({ threads: 2, bytes: 16 * mib, cacheDir: directory });
  expect(meter).toMatchObject({ threads: 2, bytes: 16 * mib });
  // Whatever the machine: more than a floppy disk, less than any memory there is.
  for (let pass = 0; pass < 3; pass++) {
    const rate = meter.measure();
    expect(rate).toBeGreaterThan(1e6);
    expect(rate).toBeLessThan(1e14);
  }
  const memory = new Float32Array(2 ** 20);
  expect(meter.measure({ address: koffi.address(memory), bytes: memory.byteLength })).toBeGreaterThan(1e6);
  meter.close();
  meter.close();
  expect(() => meter.measure()).toThrow('closed');
});

test.runIf(compiler !== undefined)('the convenience is one number', async () => {
  expect(await measureReadBandwidth({ threads: 1, bytes: 8 * mib, cacheDir: directory }, 3)).toBeGreaterThan(1e6);
});

test.runIf(compiler !== undefined)('a buffer that does not fit is one clear error', async () => {
  const opening = openBandwidthMeter({ bytes: 2 ** 52, cacheDir: directory });
  await expect(opening).rejects.toThrow('there is no memory for a buffer of 4503599627370496 bytes');
});
