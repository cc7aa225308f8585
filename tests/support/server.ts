/** Servers for tests: over an executable without a model, whose answers are known, or over the bundled model. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import type { DType } from '../../src/ir/program.js';
import { findPreset } from '../../src/models/presets.js';
import { ChatFormat } from '../../src/runtime/chat-format.js';
import { loadModel } from '../../src/runtime/load-model.js';
import { Model } from '../../src/runtime/model.js';
import type { ModelSource } from '../../src/server/served-models.js';
import { startServer, type RunningServer, type ServerOptions } from '../../src/server/server.js';
import type { Tokenizer } from '../../src/text/tokenizer.js';
import { defined } from '../../src/util/assert.js';
import { byteTokenizer, tokensOf } from './byte-tokenizer.js';
import { FakeExecutable, type FakeOptions } from './fake-executable.js';

/** Ends a text of the fake model. */
export const fakeEnd = 2;

export interface FakeModel {
  readonly model: Model;
  readonly executable: FakeExecutable;
}

/** Every token takes a millisecond. */
export const slow: FakeOptions = {
  afterToken: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1),
};

/** A model of bytes with a chat template; without `next` its answers are printable noise. */
export function fakeModel({
  slots = 2,
  context = 200,
  chat = true,
  toolTemplate: ownToolTemplate,
  tokenizer = byteTokenizer,
  formats,
  ...options
}: FakeOptions & {
  slots?: number;
  context?: number;
  /** A template of its own, or none. */
  chat?: boolean | string;
  /** Another one for conversations with tools. */
  toolTemplate?: string;
  tokenizer?: Tokenizer;
  /** Of single matrices. */
  formats?: ReadonlyMap<string, DType>;
} = {}): FakeModel {
  const executable = new FakeExecutable({ next: (tokens) => 10 + 97 + (hash(tokens) % 26), ...options });
  const template =
    typeof chat === 'string'
      ? chat
      : '{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}';
  const model = new Model({
    name: 'fake',
    config: { ...defined(findPreset('tinystories-15m'), 'preset').config, vocab: 300 },
    tokenizer,
    chat: new ChatFormat({
      ...(chat === false ? {} : { template }),
      ...(ownToolTemplate === undefined ? {} : { toolTemplate: ownToolTemplate }),
    }),
    schedule: 'looped',
    backend: 'fake',
    quant: 'f32',
    ...(formats === undefined ? {} : { formats }),
    kv: 'f32',
    limits: { rows: 32, samples: slots, slots, context },
    stopTokens: [fakeEnd],
    defaultSampling: {},
    executable,
  });
  return { model, executable };
}

/** What the fake says after `prompt`, as text: `count` letters. */
export function fakeText(prompt: readonly number[], count: number): string {
  const all = [...prompt];
  for (let i = 0; i < count; i++) all.push(10 + 97 + (hash(all) % 26));
  return byteTokenizer.decode(all.slice(prompt.length));
}

/** A fake that says `answer` to every prompt that ends in `question`. */
export function answering(question: string, answer: string): FakeOptions {
  const end = tokensOf(question).join();
  return {
    next: (tokens) => {
      // From the end, since what was said so far may hold the question, too.
      for (let said = 0; said <= tokensOf(answer).length; said++) {
        const prompt = tokens.slice(0, tokens.length - said);
        const rest = tokens.slice(tokens.length - said).join();
        if (prompt.join().endsWith(end) && rest === tokensOf(answer).slice(0, said).join()) {
          return tokensOf(answer)[said] ?? fakeEnd;
        }
      }
      return fakeEnd;
    },
  };
}

/** A fake that knows several answers. */
export function answeringAll(answers: Readonly<Record<string, string>>): FakeOptions {
  const each = Object.entries(answers).map(([question, answer]) => answering(question, answer));
  return {
    next: (tokens) => each.map(({ next }) => next!(tokens)).find((token) => token !== fakeEnd) ?? fakeEnd,
  };
}

/** Shows tools, calls and their results to the model, and calls tools as Qwen's template does. */
export const toolTemplate =
  '{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}{% for m in messages %}{{ m.role }}:{{ m.content }}' +
  '{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}' +
  '{% if m.role == "tool" %}({{ m.name }}){% endif %}{{ "\\n" }}{% endfor %}a:';

function hash(tokens: readonly number[]): number {
  let value = 2166136261;
  for (const token of tokens) value = Math.imul(value ^ token, 16777619) >>> 0;
  return value >>> 8;
}

/** The bundled model, with a chat template that it lacks. */
export async function demoModel(
  slots: number,
  template = demoTemplate,
): Promise<{ readonly model: Model; remove(): void }> {
  const parent = mkdtempSync(join(tmpdir(), 'kloop-server-'));
  const path = join(parent, 'demo-chat');
  cpSync(fileURLToPath(new URL('../../demo', import.meta.url)), path, { recursive: true });
  const file = join(path, 'tokenizer_config.json');
  const json = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  json['chat_template'] = template;
  writeFileSync(file, JSON.stringify(json));
  const model = await loadModel(path, { slots, threads: 2, cacheDir: join(tmpdir(), 'kloop-test-cache', 'kloop') });
  return { model, remove: () => rmSync(parent, { recursive: true, force: true }) };
}

const demoTemplate = '{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}';

export interface TestServer {
  readonly server: RunningServer;
  readonly url: string;
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  get(path: string, init?: RequestInit): Promise<Response>;
}

/** Listens on a free port of this machine, and logs nothing unless `log` is given. */
export async function serveModels(
  models: readonly (Model | ModelSource)[],
  options: Partial<ServerOptions> = {},
): Promise<TestServer> {
  const server = await startServer({ models, log: pino({ level: 'silent' }), port: 0, ...options });
  return {
    server,
    url: server.url,
    post: (path, body, init = {}) =>
      fetch(server.url + path, {
        method: 'POST',
        body: typeof body === 'string' ? body : JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
        ...init,
      }),
    get: (path, init) => fetch(server.url + path, init),
  };
}

/** The JSON objects of a stream of events; checks its form, and that it ends with [DONE]. */
export function eventsOf(text: string): Record<string, unknown>[] {
  const events = text.split('\n\n');
  if (events.pop() !== '') throw new Error('the stream broke off');
  const data = events.map((event) => {
    if (!event.startsWith('data: ') || event.includes('\n')) throw new Error(`no event: ${event}`);
    return event.slice('data: '.length);
  });
  if (data.pop() !== '[DONE]') throw new Error('there is no [DONE]');
  return data.map((json) => JSON.parse(json) as Record<string, unknown>);
}
