/** Who may call, and how much one may ask. */
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { text as textOf } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { ServerOptions } from '../../src/server/server.js';
import { startServer } from '../../src/server/server.js';
import { UsageError } from '../../src/util/errors.js';
import { fakeModel, serveModels, slow, type TestServer } from '../support/server.js';

const servers: TestServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map(({ server }) => server.close()));
});

async function serve(options: Partial<ServerOptions> = {}, slots = 2): Promise<TestServer> {
  const server = await serveModels([fakeModel({ slots }).model], options);
  servers.push(server);
  return server;
}

/** As fetch, but with any Host. */
function rawRequest(url: string, options: RequestOptions): Promise<{ response: IncomingMessage; body: string }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, options, (response) => {
      textOf(response).then((body) => resolve({ response, body }), reject);
    });
    request.on('error', reject);
    request.end();
  });
}

const body = { model: 'fake', prompt: 'x', max_tokens: 3 };

describe('the address', () => {
  const start = (options: Partial<ServerOptions>) =>
    startServer({ models: [], log: pino({ level: 'silent' }), port: 0, ...options });

  it('is open to other machines only with a key, or where that is said', async () => {
    for (const host of ['0.0.0.0', '::', 'example.org']) await expect(start({ host })).rejects.toThrow(UsageError);
    const open = await start({ host: '0.0.0.0', insecure: true });
    const withKey = await start({ host: '0.0.0.0', access: { apiKey: 'a long secret' } });
    await Promise.all([open.close(), withKey.close()]);
  });

  it('is refused with one line where it is taken', async () => {
    const { url } = await serve();
    const port = Number(new URL(url).port);
    const message = /cannot listen on 127.0.0.1:\d+: another program listens there; choose another --port/;
    await expect(start({ port })).rejects.toThrow(message);
    // Before anything is loaded.
    const load = vi.fn(() => Promise.reject(new Error('loaded')));
    const models = [{ name: 'large', context: 8, bytes: 1, load }];
    await expect(start({ port, models, preload: ['large'] })).rejects.toThrow(message);
    expect(load).not.toHaveBeenCalled();
  });
});

describe('the key', () => {
  it('is wanted on every route but health', async () => {
    const server = await serve({ access: { apiKey: 'correct-horse' } });
    const status = async (path: string, authorization?: string): Promise<number> => {
      const headers = authorization === undefined ? {} : { authorization };
      return (await server.get(path, { headers })).status;
    };
    for (const path of ['/v1/models', '/metrics', '/openapi.json', '/nowhere', '/health/other']) {
      expect(await status(path), path).toBe(401);
      for (const wrong of [
        'Bearer',
        'Bearer correct-horsf',
        'Bearer correct-horse2',
        'Basic correct-horse',
        'correct-horse',
      ]) {
        expect(await status(path, wrong), wrong).toBe(401);
      }
    }
    expect(await status('/v1/models', 'Bearer correct-horse')).toBe(200);
    expect(await status('/v1/models', 'bearer correct-horse')).toBe(200);
    for (const path of ['/health', '/health/live', '/health/ready']) expect(await status(path), path).toBe(200);
    const refused = await server.post('/v1/completions', body);
    expect(refused.headers.get('www-authenticate')).toBe('Bearer');
    expect(await refused.json()).toMatchObject({ error: { type: 'invalid_request_error', code: 'invalid_api_key' } });
  });
});

describe('the example for Kubernetes', () => {
  const read = (name: string): string =>
    readFileSync(fileURLToPath(new URL(`../../examples/deploy/${name}`, import.meta.url)), 'utf8');

  it('has metrics read with the key that it sets, and not announced to those who have none', async () => {
    const [pods, monitor] = [read('kubernetes.yaml'), read('kubernetes-metrics.yaml')];
    expect(pods).toMatch(/name: KLOOP_API_KEY\n\s+valueFrom:\n\s+secretKeyRef: \{ name: kloop, key: api-key \}/);
    expect(pods).not.toContain('prometheus.io/');
    expect(monitor).toMatch(/port: http\n\s+path: \/metrics\n(\s*#.*\n)?\s+authorization:\n\s+credentials:/);
    expect(monitor).toContain('credentials: { name: kloop, key: api-key }');
    const server = await serve({ access: { apiKey: 'correct-horse' } });
    expect((await server.get('/metrics')).status).toBe(401);
    const headers = { authorization: 'Bearer correct-horse' };
    expect((await server.get('/metrics', { headers })).status).toBe(200);
  });
});

describe('host and origin', () => {
  const statusFor = async (server: TestServer, headers: Record<string, string>): Promise<number> => {
    const { response } = await rawRequest(`${server.url}/v1/models`, { headers });
    return response.statusCode!;
  };

  it('answers to addresses, localhost and the names it was given', async () => {
    const server = await serve({ access: { allowedHosts: ['Kloop.Example'] } });
    const { port } = new URL(server.url);
    for (const host of [
      `127.0.0.1:${port}`,
      'localhost',
      'app.localhost:1',
      '[::1]:80',
      '10.0.0.7',
      'kloop.example:80',
      'KLOOP.example',
    ]) {
      expect(await statusFor(server, { host }), host).toBe(200);
    }
    for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', 'kloop.example.evil']) {
      expect(await statusFor(server, { host }), host).toBe(403);
    }
    // These never reach a route.
    for (const host of ['a b', '127.0.0.1@evil.example', '[::1'])
      expect(await statusFor(server, { host }), host).toBeGreaterThan(399);
  });

  it('takes requests of its own pages and of those that were allowed', async () => {
    const server = await serve({ access: { allowedOrigins: ['https://app.example'] } });
    expect(await statusFor(server, { origin: server.url })).toBe(200);
    for (const origin of [
      'https://evil.example',
      'null',
      'http://127.0.0.1:1',
      'https://app.example.evil',
      'http://app.example',
    ]) {
      expect(await statusFor(server, { origin }), origin).toBe(403);
    }
    const allowed = await server.get('/v1/models', { headers: { origin: 'https://app.example' } });
    expect([allowed.status, allowed.headers.get('access-control-allow-origin'), allowed.headers.get('vary')]).toEqual([
      200,
      'https://app.example',
      'Origin',
    ]);
    // A proxy before it has TLS, and hands the name on.
    const host = 'llm.example';
    const behind = await serve({ access: { allowedHosts: [host] } });
    for (const origin of [`https://${host}`, `http://${host}`]) {
      expect(await statusFor(behind, { host, origin }), origin).toBe(200);
    }
    expect(await statusFor(behind, { host: `${host}:8443`, origin: `https://${host}:8443` })).toBe(200);
    for (const origin of [
      `https://${host}:8443`,
      `https://${host}.evil`,
      `https://evil.${host}`,
      `https://${host}@evil.example`,
      `https://${host}/`,
      `HTTPS://${host}`,
      `ftp://${host}`,
      'https://',
      'https://localhost',
      host,
    ]) {
      expect(await statusFor(behind, { host, origin }), origin).toBe(403);
    }
    expect(await statusFor(behind, { host: `${host}:8443`, origin: `https://${host}` })).toBe(403);
    expect(await statusFor(behind, { host: 'evil.example', origin: 'https://evil.example' })).toBe(403);
    const none = await server.get('/v1/models');
    expect(none.headers.get('access-control-allow-origin')).toBeNull();
  });

  it('answers preflight requests without a key, and lets the page read what failed', async () => {
    const server = await serve({ access: { apiKey: 'correct-horse', allowedOrigins: ['https://app.example'] } });
    const headers = {
      origin: 'https://app.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type',
    };
    const { response } = await rawRequest(`${server.url}/v1/completions`, { method: 'OPTIONS', headers });
    expect(response.statusCode).toBe(204);
    expect(response.headers).toMatchObject({
      'access-control-allow-origin': 'https://app.example',
      'access-control-allow-methods': 'GET, POST',
      'access-control-allow-headers': 'authorization,content-type',
    });
    const refused = await server.get('/v1/models', { headers: { origin: 'https://app.example' } });
    expect([refused.status, refused.headers.get('access-control-allow-origin')]).toEqual([401, 'https://app.example']);
  });

  it('lets no page show or load anything', async () => {
    const { headers } = await (await serve()).get('/v1/models');
    expect(headers.get('content-security-policy')).toBe("default-src 'none'; frame-ancestors 'none'");
    expect(headers.get('x-content-type-options')).toBe('nosniff');
  });
});

describe('limits', () => {
  it('bounds bodies, whether or not they say their length', async () => {
    const server = await serve({ limits: { bodyBytes: 1000 } });
    const large = JSON.stringify({ ...body, prompt: 'x'.repeat(1000) });
    expect((await server.post('/v1/completions', large)).status).toBe(413);
    const chunks = new ReadableStream({
      start(controller) {
        for (let i = 0; i < 20; i++) controller.enqueue(new TextEncoder().encode(large.slice(0, 100)));
        controller.close();
      },
    });
    const response = await server.get('/v1/completions', {
      method: 'POST',
      body: chunks,
      duplex: 'half',
    });
    expect([response.status, await response.json()]).toMatchObject([413, { error: { code: 'request_too_large' } }]);
    expect((await server.post('/v1/completions', body)).status).toBe(200);
  });

  it('bounds headers', async () => {
    const server = await serve({ limits: { headerBytes: 2000 } });
    expect((await server.get('/health', { headers: { 'x-long': 'x'.repeat(3000) } })).status).toBe(431);
  });

  it('refuses what the queue has no room for, and says when to come again', async () => {
    const server = await serve({ limits: { queue: 1 } }, 1);
    const controller = new AbortController();
    const long = { ...body, max_tokens: 150, stream: true };
    const first = await server.post('/v1/completions', long, { signal: controller.signal });
    const second = server.post('/v1/completions', body);
    await expect
      .poll(async () =>
        (await (await server.get('/metrics')).text()).includes('num_requests_waiting{model_name="fake"} 1'),
      )
      .toBe(true);
    const third = await server.post('/v1/completions', body);
    expect(third.status).toBe(503);
    expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await third.json()).toMatchObject({ error: { type: 'server_error', code: 'overloaded' } });
    controller.abort();
    await first.text().catch(() => undefined);
    expect((await second).status).toBe(200);
  });

  it('refuses for good what the queue will never have room for', async () => {
    const server = await serve({ limits: { queue: 4 } }, 2);
    for (const [wanted, stream] of [
      [{ n: 7 }, false],
      [{ n: 7 }, true],
      [{ prompt: Array(7).fill('x') }, false],
    ] as const) {
      const refused = await server.post('/v1/completions', { ...body, ...wanted, stream });
      expect([refused.status, refused.headers.get('retry-after'), await refused.json()]).toMatchObject([
        400,
        null,
        { error: { code: 'invalid_value', message: expect.stringContaining('at most 6 can run or wait') as string } },
      ]);
    }
    expect((await server.post('/v1/completions', { ...body, n: 6 })).status).toBe(200);
  });

  it('ends a request whose time is up with what there is', async () => {
    const server = await serveModels([fakeModel({ ...slow, slots: 1 }).model], { limits: { requestMs: 100 } });
    servers.push(server);
    const answered = await server.post('/v1/completions', { ...body, max_tokens: 190 });
    const answer = (await answered.json()) as { choices: { text: string; finish_reason: string }[] };
    expect([answered.status, answer.choices[0]!.finish_reason]).toEqual([200, 'length']);
    expect(answer.choices[0]!.text.length).toBeGreaterThan(0);
    expect(answer.choices[0]!.text.length).toBeLessThan(190);
  });

  it('keeps prompts and texts out of the log', async () => {
    const lines: string[] = [];
    const log = pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) });
    const server = await serve({ log });
    const response = await server.post(
      '/v1/completions',
      { ...body, prompt: 'my secret' },
      { headers: { 'x-request-id': 'req-1' } },
    );
    const { choices } = (await response.json()) as { choices: { text: string }[] };
    await server.post('/v1/completions', { ...body, prompt: 'my secret', top_p: 7 });
    await server.post('/v1/completions', '{"my secret');
    expect(response.headers.get('x-request-id')).toBe('req-1');
    const all = lines.join('');
    expect(all).not.toContain('secret');
    expect(all).not.toContain(choices[0]!.text);
    expect(lines.map((line) => JSON.parse(line) as object)).toContainEqual(
      expect.objectContaining({ request_id: 'req-1', prompt_tokens: 10, completion_tokens: 3, msg: 'texts made' }),
    );
    // A request id that could forge a line of the log is not taken over.
    const forged = await server.get('/health', { headers: { 'x-request-id': 'a b' } });
    expect(forged.headers.get('x-request-id')).toMatch(/^[\da-f-]{36}$/);
  });
});
