/** Clients that leave, stall, or send anything; and the end of the server. */
import { connect, type Socket } from 'node:net';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { ServerOptions } from '../../src/server/server.js';
import { fakeModel, fakeText, serveModels, slow, type FakeModel, type TestServer } from '../support/server.js';
import type { Tokenizer } from '../../src/text/tokenizer.js';
import { byteTokenizer } from '../support/byte-tokenizer.js';

const servers: TestServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map(({ server }) => server.close()));
});

async function serve(fake: FakeModel = fakeModel(), options: Partial<ServerOptions> = {}): Promise<TestServer> {
  const server = await serveModels([fake.model], options);
  servers.push(server);
  return server;
}

const body = { model: 'fake', prompt: 'x', max_tokens: 5, temperature: 0 };
const expected = fakeText(byteTokenizer.encode('x'), 5);

/** Every token is a text of 100,000 characters. */
const longWinded: Tokenizer = { ...byteTokenizer, bytesOf: (id) => new Uint8Array(100_000).fill(id - 10) };

/** The server still does what it should, and nothing is left of what was before. */
async function expectWell(server: TestServer): Promise<void> {
  const response = await server.post('/v1/completions', body);
  expect(await response.json()).toMatchObject({ choices: [{ text: expected }] });
  await expect.poll(() => server.server.inFlight).toBe(0);
  const metrics = await (await server.get('/metrics')).text();
  expect(metrics).toContain('num_requests_running{model_name="fake"} 0');
  expect(metrics).toContain('num_requests_waiting{model_name="fake"} 0');
}

async function connected(server: TestServer, text = ''): Promise<Socket> {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('connect', resolve));
  if (text !== '') socket.write(text);
  return socket;
}

function httpText(json: object): string {
  const content = JSON.stringify(json);
  return `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${content.length}\r\n\r\n${content}`;
}

describe('a client that', () => {
  it('leaves in the middle of a stream costs nothing more', async () => {
    const fake = fakeModel({ ...slow, slots: 1, context: 100_000 });
    const server = await serve(fake);
    const controller = new AbortController();
    const response = await server.post(
      '/v1/completions',
      { ...body, max_tokens: 50_000, stream: true },
      { signal: controller.signal },
    );
    const reader = response.body!.getReader();
    for (let i = 0; i < 4; i++) await reader.read();
    controller.abort();
    await expect.poll(() => server.server.inFlight).toBe(0);
    const { tokens } = fake.model.counters;
    expect(tokens).toBeLessThan(500);
    await expectWell(server);
    // Those of the request that this check makes.
    expect(fake.model.counters.tokens - tokens).toBe(5);
  });

  it.each([false, true])(
    'leaves before its answer is complete, in the queue or not, is forgotten (stream: %s)',
    async (stream) => {
      const server = await serve(fakeModel({ slots: 1, context: 100_000 }));
      const sockets = await Promise.all(
        [1, 2, 3].map(() => connected(server, httpText({ ...body, max_tokens: 50_000, stream }))),
      );
      await expect.poll(() => server.server.inFlight).toBe(3);
      for (const socket of sockets) socket.destroy();
      await expect.poll(() => server.server.inFlight).toBe(0);
      await expectWell(server);
    },
  );

  it('does not read is cut off, and others are served meanwhile', async () => {
    const server = await serve(fakeModel({ slots: 2, context: 5000, tokenizer: longWinded }), {
      limits: { stallMs: 300 },
    });
    const socket = await connected(server);
    socket.pause();
    // Far more than the buffers of both sides hold.
    socket.write(httpText({ ...body, max_tokens: 300, stream: true }));
    await expect.poll(() => server.server.inFlight).toBe(1);
    expect((await server.post('/v1/completions', body)).status).toBe(200);
    await expect.poll(() => server.server.inFlight, { timeout: 20_000 }).toBe(0);
    socket.destroy();
  });

  it('sends only half of a request is cut off', async () => {
    const server = await serve(fakeModel(), { limits: { receiveMs: 200 } });
    const sockets = await Promise.all([
      connected(server, 'POST /v1/completions HTTP/1.1\r\nHost: loc'),
      connected(server, httpText(body).slice(0, -5)),
    ]);
    const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve).resume()));
    await Promise.all(closed);
    await expectWell(server);
  });

  it('opens and drops many connections leaves nothing behind', async () => {
    const server = await serve(fakeModel(), { limits: { connections: 64 } });
    for (let round = 0; round < 10; round++) {
      const sockets = await Promise.all(
        Array.from({ length: 50 }, (_, i) =>
          connected(server, ['', 'GET /hea', '\0\u0001\n\n', httpText(body)][i % 4]),
        ),
      );
      for (const socket of sockets) socket.destroy();
    }
    await expectWell(server);
  });

  it('sends no HTTP gets a 400', async () => {
    const server = await serve();
    const socket = await connected(server, 'hello\r\n\r\n');
    const text = await new Promise<string>((resolve) => socket.once('data', (data) => resolve(data.toString())));
    expect(text).toMatch(/^HTTP\/1.1 400/);
    await expectWell(server);
  });
});

describe('a body', () => {
  it('of any JSON gets an answer or an error that says what is wrong', async () => {
    const server = await serve(fakeModel({ slots: 4 }));
    const paths = ['/v1/completions', '/v1/chat/completions', '/tokenize', '/detokenize'] as const;
    const text = fc.string({ unit: 'binary', maxLength: 20 });
    const values = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      text,
      fc.integer(),
      fc.constantFrom(1e308, -0, 2 ** 53, null),
    );
    const names = fc.constantFrom(
      ...['prompt', 'messages', 'max_tokens', 'n', 'stop', 'seed', 'temperature', 'top_p', 'top_k', 'stream', 'tokens'],
      ...['tools', 'logprobs', 'stream_options', '__proto__', 'constructor', 'toString', 'presence_penalty', 'echo'],
    );
    const message = fc.record({
      role: fc.oneof(fc.constantFrom('user', 'system', 'assistant'), text),
      content: fc.oneof(text, values),
    });
    const wellFormed = fc.oneof(
      fc.record({ prompt: fc.oneof(text, fc.array(text), fc.array(fc.integer({ min: -1, max: 400 }))) }),
      fc.record({ messages: fc.array(message, { maxLength: 3 }) }),
      fc.record({ tokens: fc.array(fc.integer({ min: -1, max: 400 })) }),
    );
    const bodies = fc.tuple(wellFormed, fc.dictionary(names, values, { maxKeys: 2 }));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), bodies, async (path, [base, changes]) => {
        const json = JSON.stringify({
          model: 'fake',
          ...(path.startsWith('/v1') ? { max_tokens: 3 } : {}),
          ...base,
          ...changes,
        });
        const response = await server.post(path, json);
        const answer = await response.text();
        expect([200, 400]).toContain(response.status);
        if (response.status === 400) expect(JSON.parse(answer)).toHaveProperty('error.message');
      }),
      { numRuns: 300 },
    );
    await expectWell(server);
  });

  it('of any bytes gets a 400', async () => {
    const server = await serve();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
        const response = await server.post('/v1/completions', '', { body: bytes });
        expect([response.status, await response.json()]).toMatchObject([
          400,
          { error: { type: 'invalid_request_error' } },
        ]);
      }),
      { numRuns: 60 },
    );
    const deep = '['.repeat(500_000);
    expect((await server.post('/v1/completions', deep)).status).toBe(400);
    expect(
      (await server.post('/v1/completions', `{"model":"fake","prompt":${deep}${']'.repeat(500_000)}}`)).status,
    ).toBe(400);
    await expectWell(server);
  });
});

describe('the end of the server', () => {
  it('lets what runs come to its end, and tells those who come meanwhile that it takes nothing new', async () => {
    const fake = fakeModel({ ...slow, slots: 1 });
    const server = await serveModels([fake.model]);
    const idle = await connected(server);
    const running = [1, 2, 3].map(() => server.post('/v1/completions', { ...body, max_tokens: 150 }));
    await expect.poll(() => server.server.inFlight).toBe(3);
    const closing = server.server.close(30_000);
    // On connections of their own, as a load balancer asks.
    const fresh = { headers: { connection: 'close' } };
    for (const path of ['/health/ready', '/health']) {
      const ready = await server.get(path, fresh);
      expect([ready.status, await ready.json()]).toEqual([503, { status: 'draining' }]);
    }
    expect((await server.get('/health/live', fresh)).status).toBe(200);
    expect((await server.get('/metrics', fresh)).status).toBe(200);
    for (const path of ['/v1/completions', '/v1/chat/completions', '/tokenize', '/detokenize']) {
      const refused = await server.post(path, body);
      const [retry, connection] = ['retry-after', 'connection'].map((name) => refused.headers.get(name));
      expect([refused.status, retry, connection, await refused.json()]).toMatchObject([
        503,
        '1',
        'close',
        { error: { type: 'server_error', code: 'shutting_down', message: 'the server is shutting down' } },
      ]);
    }
    expect(server.server.inFlight).toBe(3);
    const answers = await Promise.all(running);
    for (const answer of answers) {
      expect(await answer.json()).toMatchObject({ choices: [{ text: fakeText(byteTokenizer.encode('x'), 150) }] });
    }
    await closing;
    await expect(server.get('/health/live', fresh)).rejects.toThrow();
    expect(fake.executable.closed).toBe(true);
    idle.destroy();
  });

  it('comes at once where nothing runs, and sooner where it is asked for again', async () => {
    const quiet = await serveModels([fakeModel().model]);
    await quiet.server.close(600_000);
    await expect(quiet.get('/health/live')).rejects.toThrow();
    const server = await serveModels([fakeModel({ slots: 1, context: 100_000 }).model]);
    const stream = await server.post('/v1/completions', { ...body, max_tokens: 90_000, stream: true });
    const closing = server.server.close(600_000);
    expect((await server.get('/health/ready')).status).toBe(503);
    await Promise.all([closing, server.server.close(0)]);
    expect(await stream.text()).toContain('shutting_down');
    await expect(server.get('/health/live')).rejects.toThrow();
  });

  it('ends with an error what takes too long', async () => {
    const fake = fakeModel({ slots: 1, context: 100_000 });
    const server = await serveModels([fake.model]);
    const long = { ...body, max_tokens: 90_000 };
    const stream = await server.post('/v1/completions', { ...long, stream: true });
    const whole = server.post('/v1/completions', long);
    await expect.poll(() => server.server.inFlight).toBe(2);
    const closing = server.server.close(100);
    const events = (await stream.text()).trim().split('\n\n');
    expect(JSON.parse(events.at(-1)!.slice('data: '.length))).toMatchObject({ error: { code: 'shutting_down' } });
    const answer = await whole;
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1']);
    await closing;
    expect(fake.executable.closed).toBe(true);
  });
});
