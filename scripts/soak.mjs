/* global AbortController, fetch, setTimeout */
/**
 * A server under everything that clients do, for minutes: texts, streams that are left, streams that are read slowly,
 * bodies that are wrong, connections that are dropped. Prints memory and handles as they go, and ends with exit code 1 when
 * a request was neither answered nor cleanly ended, or when memory or handles still grow at the end. Linux only.
 *
 *   npm run soak -- --minutes 10 --model demo
 */
import { readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { startServe } from '../dist/bench/serve/serve-process.js';
import { scriptOptions } from './options.mjs';

const { values } = scriptOptions({
  options: { minutes: { type: 'string', default: '5' }, model: { type: 'string', default: 'demo' } },
});
const minutes = Number(values.minutes);
/** Of memory, from the second quarter of the run to the last. */
const mostGrowth = 1.1;
const clients = 6;
/** Longer than the server keeps a connection that nobody uses. */
const restMs = 12_000;

const server = await startServe(values.model, ['--slots', '4', '--queue', '64']);
const url = new URL(server.url);
const { data } = await (await fetch(new URL('/v1/models', url))).json();
const model = data[0].id;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const counts = new Map();
const failures = [];

const ask = (body, signal) =>
  fetch(new URL('/v1/completions', url), {
    method: 'POST',
    body:
      typeof body === 'string' ? body : JSON.stringify({ model, prompt: 'Once upon a time', max_tokens: 24, ...body }),
    ...(signal === undefined ? {} : { signal }),
  });

/** What a client does; each throws where the server did not do its part. */
const behaviours = {
  async text() {
    const response = await ask({ seed: 1 });
    const { choices } = await response.json();
    if (response.status !== 200 || choices[0].text === '') throw new Error(`status ${response.status}`);
  },
  async stream() {
    const text = await (await ask({ stream: true })).text();
    if (!text.endsWith('data: [DONE]\n\n')) throw new Error('a stream without an end');
  },
  async 'left stream'() {
    const controller = new AbortController();
    const response = await ask({ stream: true, max_tokens: 400, ignore_eos: true }, controller.signal);
    await response.body.getReader().read();
    controller.abort();
  },
  async 'slow reader'() {
    const response = await ask({ stream: true, max_tokens: 100 });
    for await (const piece of response.body) if (piece.length > 0) await pause(20);
  },
  async 'wrong body'() {
    const bodies = ['{', '[]', '{"model": 1}', JSON.stringify({ model, prompt: 'x', temperature: 'hot' })];
    const { status } = await ask(bodies[Math.floor(Math.random() * bodies.length)]);
    if (status !== 400) throw new Error(`status ${status} for a wrong body`);
  },
  async 'long prompt'() {
    const { status } = await ask({ prompt: 'word '.repeat(20_000) });
    if (status !== 400) throw new Error(`status ${status} for a prompt beyond the context`);
  },
  'dropped connections': () => dropConnections(50),
};

/** Megabytes that the process holds itself, and open files. */
function sample() {
  const status = readFileSync(`/proc/${server.pid}/status`, 'utf8');
  const kilobytes = Number(/^RssAnon:\s+(\d+)/m.exec(status)[1]);
  return { megabytes: kilobytes / 1024, handles: readdirSync(`/proc/${server.pid}/fd`).length };
}

/** Opens and drops that many connections, most of them in the middle of a request. */
async function dropConnections(count) {
  const opened = async (i) => {
    const socket = connect(Number(url.port), url.hostname);
    await new Promise((resolve) => socket.once('connect', resolve).once('error', resolve));
    const texts = [
      '',
      'GET /hea',
      '\0\n',
      'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"',
    ];
    socket.on('error', () => undefined).write(texts[i % 4], () => socket.destroy());
    await new Promise((resolve) => socket.once('close', resolve));
  };
  const atOnce = Math.min(count, 200);
  for (let i = 0; i < count; i += atOnce) await Promise.all(Array.from({ length: atOnce }, (_, j) => opened(i + j)));
}

const before = sample();
const connections = 10_000;
await dropConnections(connections);
await behaviours.text();
console.log(`${connections} connections opened and dropped, and it answers`);
const end = Date.now() + minutes * 60_000;
const samples = [];
async function client() {
  const names = Object.keys(behaviours);
  while (Date.now() < end) {
    const name = names[Math.floor(Math.random() * names.length)];
    try {
      await behaviours[name]();
      counts.set(name, (counts.get(name) ?? 0) + 1);
    } catch (error) {
      failures.push(`${name}: ${error.message}`);
    }
  }
}
async function watch() {
  console.log('  minute   memory  handles  requests');
  while (Date.now() < end) {
    await pause(Math.min(5000, (minutes * 60_000) / 40));
    const now = sample();
    samples.push(now);
    if (samples.length % 4 !== 0) continue;
    const minute = minutes - (end - Date.now()) / 60_000;
    const done = [...counts.values()].reduce((sum, count) => sum + count, 0);
    const columns = [minute.toFixed(1), `${now.megabytes.toFixed(0)} MB`, now.handles, done];
    console.log(columns.map((column) => String(column).padStart(8)).join(' '));
  }
}
await Promise.all([watch(), ...Array.from({ length: clients }, client)]);
await pause(restMs);
const atRest = sample();
await server.stop();

const middle = (from, to, pick) => {
  const part = samples.slice(Math.floor(samples.length * from), Math.ceil(samples.length * to)).map(pick);
  return part.sort((a, b) => a - b)[part.length >> 1];
};
const growth = middle(0.75, 1, ({ megabytes }) => megabytes) / middle(0.25, 0.5, ({ megabytes }) => megabytes);
console.log([...counts].map(([name, count]) => `${name}: ${count}`).join(', '));
console.log(
  `memory of the last quarter over the second: ${growth.toFixed(3)}; handles before: ${before.handles}, after: ${atRest.handles}`,
);
for (const failure of failures.slice(0, 10)) console.error(failure);
if (failures.length > 0) console.error(`${failures.length} failures`);
if (failures.length > 0 || growth > mostGrowth || atRest.handles > before.handles + 2) process.exitCode = 1;
