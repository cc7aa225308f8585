import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { UsageError } from '../util/errors.js';
import { openLlamaCpp } from './llama-cpp.js';

const made: string[] = [];
afterEach(() => made.splice(0).forEach((directory) => rmSync(directory, { recursive: true })));

/** A peer package whose runner is the body of a function from request to answer line. */
function fakePeer(answer: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'kloop-peer-'));
  made.push(directory);
  mkdirSync(join(directory, 'node_modules', 'node-llama-cpp'), { recursive: true });
  const runner = `import { createInterface } from 'node:readline';
const info = { threads: 1, context: 256, vocab: 3, system: 'fake', release: 'v0' };
const answer = (request) => { ${answer} };
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const result = request.op === 'load' ? info : answer(request);
  process.stdout.write((typeof result === 'string' ? result : JSON.stringify({ ok: true, result })) + '\\n');
}`;
  writeFileSync(join(directory, 'llama-cpp.mjs'), runner);
  return directory;
}

const options = { gguf: 'm.gguf', weights: 'q8_0', threads: 1, context: 256 } as const;

test('answers come in the order of the questions', async () => {
  const directory = fakePeer(`
    if (request.op === 'logits') return { logits: [0, 1, request.prompt[0]] };
    if (request.op === 'greedy') return { tokens: new Array(request.tokens).fill(2), top: [[[2, request.top]]] };
    return { milliseconds: 3, tokens: request.tokens };`);
  const peer = await openLlamaCpp({ ...options, directory });
  const [logits, greedy, top, decode, prefill] = await Promise.all([
    peer.logits([2]),
    peer.greedy([1], 3),
    peer.greedyTop([1], 1, 5),
    peer.decode({ prompt: 1, tokens: 7 }),
    peer.prefill(9),
  ]);
  expect(logits).toEqual(Float32Array.of(0, 1, 2));
  expect(greedy).toEqual({ tokens: [2, 2, 2] });
  expect(top).toEqual({ tokens: [2], top: [[[2, 5]]] });
  expect([decode, prefill]).toEqual([7, 9].map((tokens) => ({ milliseconds: 3, tokens })));
  expect(peer.info).toEqual({
    ...{ kind: { engine: 'llama.cpp' }, weights: 'q8_0', cache: 'f16', release: 'v0', system: 'fake' },
  });
  expect(process.kill(peer.pid, 0)).toBe(true);
  await peer.close();
  await expect(peer.prefill(1)).rejects.toThrow('closed');
});

test('a stop ends the process while it loads', async () => {
  const directory = fakePeer('return {}');
  writeFileSync(join(directory, 'llama-cpp.mjs'), 'setInterval(() => {}, 1000)');
  const stop = new AbortController();
  const opening = openLlamaCpp({ ...options, directory, signal: stop.signal });
  stop.abort();
  await expect(opening).rejects.toThrow('closed');
});

test.each([
  ['an error', `return JSON.stringify({ ok: false, error: 'no such token' })`, 'llama.cpp: no such token'],
  ['no JSON', `return 'segfault'`, 'not the protocol'],
  ['another shape', `return { seconds: 1 }`, 'another shape'],
  ['its death', `console.error('GGML_ASSERT failed'); process.exit(9)`, 'exit code 9): GGML_ASSERT failed'],
])('%s is one clear error', async (_, answer, message) => {
  const peer = await openLlamaCpp({ ...options, directory: fakePeer(answer) });
  await expect(peer.prefill(8)).rejects.toThrow(message);
  await peer.close();
});

test('says how to install what is not there', async () => {
  const directory = join(tmpdir(), 'kloop-no-peer');
  const opening = openLlamaCpp({ ...options, directory });
  await expect(opening).rejects.toThrow(UsageError);
  await expect(opening).rejects.toThrow(`run: npm install --ignore-scripts --no-package-lock --prefix ${directory}`);
});
