/** The page in a real browser: everything it shows comes from the server it is served by, and from nowhere else. */
import { existsSync } from 'node:fs';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findMachine } from '../../src/simulator/machines/index.js';
import { fakeModel, serveModels, type TestServer } from '../support/server.js';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
/** A token takes long enough to be stopped. */
const wait = (): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
const key = 'a-key-of-the-page';

describe.skipIf(executablePath === undefined)('the page, in a browser (skipped where there is no chromium)', () => {
  let browser: Browser;
  let server: TestServer;
  const troubles: string[] = [];
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] });
    server = await serveModels([fakeModel({ afterToken: wait }).model], {
      hostMachine: { ...findMachine('h200'), name: 'host', title: 'Measured machine' },
      access: { apiKey: key },
    });
  }, 60_000);
  afterAll(async () => {
    await browser.close();
    await server.server.close();
  });

  const open = async (options: Parameters<Browser['newPage']>[0] = {}): Promise<Page> => {
    const page = await browser.newPage(options);
    page.on('console', (message) => {
      // Without a key the first request is refused, and the browser says so; 418 is what tests make of others.
      if (message.type() === 'error' && !/401|418/.test(message.text())) troubles.push(message.text());
    });
    page.on('pageerror', (error) => troubles.push(error.message));
    page.on('request', (request) => {
      const url = request.url();
      if (!url.startsWith(server.server.url) && !url.startsWith('data:')) troubles.push(`a request to ${url}`);
    });
    await page.goto(server.server.url);
    await page.getByLabel('API key').fill(key);
    await page.getByRole('button', { name: 'Use it' }).click();
    await page.waitForSelector('#send:enabled');
    return page;
  };

  it('answers, shows what it cost, and draws every schedule on every machine', async () => {
    const page = await open();
    await page.getByText('Sampling').click();
    await page.getByLabel('Most tokens').fill('30');
    await page.getByLabel('Prompt', { exact: true }).fill('<b>hello</b>');
    await page.keyboard.press('Enter');
    await page.getByText('Ended at the limit of tokens.').waitFor();
    const articles = await page.locator('article p').allTextContents();
    // As text, and as long as was asked for.
    expect(articles).toEqual(['<b>hello</b>', expect.stringMatching(/^[a-z]{30}$/)]);
    expect(await page.locator('article b').count()).toBe(0);
    await page.getByRole('row', { name: 'Kernel calls per token' }).waitFor();
    expect(await page.getByRole('img', { name: /kernel calls in/ }).count()).toBe(1);
    for (const title of ['Measured machine', 'SambaNova SN40L', 'NVIDIA H100']) {
      const machine = page.locator('details.machine', { hasText: title });
      for (const schedule of ['operator', 'layer', 'looped', 'response']) {
        const bar = machine.getByRole('img', { name: new RegExp(`^${schedule}: .* boundary`) });
        expect(await bar.locator('path.boundary').getAttribute('d')).toMatch(/^M0\.00 0h/);
      }
    }
    await page.close();
  });

  it('stops when it is told to, and can go on', async () => {
    const page = await open();
    await page.getByLabel('Prompt', { exact: true }).fill('tell me everything');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.locator('article.assistant p', { hasText: /[a-z]{5}/ }).waitFor();
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Stopped.').waitFor();
    expect(await page.getByRole('button', { name: 'Send' }).isEnabled()).toBe(true);
    expect(server.server.inFlight).toBe(0);
    await page.close();
  });

  it('forgets what was stopped before an answer, so that it can be asked again', async () => {
    const page = await open();
    await page.route('**/v1/chat/completions', () => undefined);
    await page.getByLabel('Prompt', { exact: true }).fill('are you there');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.locator('article.assistant').waitFor();
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Stopped before an answer.').waitFor({ timeout: 5000 });
    expect(await page.locator('article').count()).toBe(0);
    expect(await page.getByText('Nothing has been said yet.').count()).toBe(1);
    expect(await page.getByLabel('Prompt', { exact: true }).inputValue()).toBe('are you there');
    await page.close();
  });

  it('says why there is no answer, though it cannot count either', async () => {
    const page = await open();
    const fail = (message: string) => ({ status: 418, json: { error: { message } } });
    await page.route('**/v1/chat/completions', async (route) => {
      await page.route('**/counters', (other) => other.fulfill(fail('cannot count')));
      await route.fulfill(fail('no answer today'));
    });
    await page.getByLabel('Prompt', { exact: true }).fill('hello');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.locator('#status.error').waitFor({ timeout: 5000 });
    await page.waitForTimeout(300);
    expect(await page.locator('#status').textContent()).toBe('no answer today');
    await page.close();
  });

  it('fits a phone, follows dark mode, and is usable by keyboard', async () => {
    const page = await open({ viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
    expect(await page.evaluate<number>('document.documentElement.scrollWidth')).toBeLessThanOrEqual(360);
    const background = await page.evaluate<string>('getComputedStyle(document.documentElement).backgroundColor');
    const [red = 255] = (/\d+/.exec(background) ?? []).map(Number);
    expect(red).toBeLessThan(60);
    await page.getByLabel('Prompt', { exact: true }).focus();
    for (const name of ['Send', 'Clear', 'Sampling']) {
      await page.keyboard.press('Tab');
      expect(await page.evaluate<string>('document.activeElement.textContent')).toBe(name);
      expect(await page.evaluate<string>('getComputedStyle(document.activeElement).outlineStyle')).toBe('solid');
    }
    await page.close();
  });

  it('had nothing to complain about, and asked nobody else', () => {
    expect(troubles).toEqual([]);
  });
});

describe('what the page is made of', () => {
  it('needs no key, runs under a strict policy, and is all there is without one', async () => {
    const server = await serveModels([fakeModel().model], { access: { apiKey: 'secret-key' } });
    try {
      const page = await server.get('/');
      expect(page.status).toBe(200);
      const policy = page.headers.get('content-security-policy') ?? '';
      expect(policy).toContain("default-src 'none'");
      expect(policy).not.toContain('unsafe');
      const html = await page.text();
      expect(html).not.toMatch(/<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=/);
      const script = /src="(\/assets\/[^"]+\.js)"/.exec(html)?.[1] ?? '';
      const asset = await server.get(script);
      expect(asset.headers.get('cache-control')).toContain('immutable');
      expect((await server.get('/assets/../package.json')).status).toBe(401);
      expect((await server.get('/assets/nothing.js')).status).toBe(404);
      for (const path of ['/inspect/fake', '/inspect/fake/counters']) expect((await server.get(path)).status).toBe(401);
    } finally {
      await server.server.close();
    }
  });
});
