/**
 * llama.cpp as the peer of benchmarks: the typed side of the line protocol that bench/peer/llama-cpp.mjs speaks. The
 * peer is a package of its own, installed by whoever wants to compare, and runs as a child process.
 */
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { defined } from '../util/assert.js';
import { KloopError, UsageError, messageOf } from '../util/errors.js';

export interface PeerOptions {
  /** Path of the model. */
  readonly gguf: string;
  readonly threads: number;
  /** Tokens the context holds; llama.cpp rounds up to a multiple of 256. */
  readonly context: number;
  /** Format of the KV cache; llama.cpp's own default is f16. */
  readonly cache?: 'f16' | 'f32' | 'bf16' | 'q8_0';
  /** Absent: as llama.cpp decides. */
  readonly flashAttention?: boolean;
  /** Directory of the peer package, where it is not the one of this repository. */
  readonly directory?: string;
}

export interface PeerInfo {
  readonly threads: number;
  readonly context: number;
  readonly vocab: number;
  /** llama.cpp's line about the instruction sets in use. */
  readonly system: string;
  /** Release of llama.cpp. */
  readonly release: string;
}

export interface PeerGreedy {
  readonly tokens: readonly number[];
  /** Per step, the highest logits as (token, logit), highest first; empty unless asked for. */
  readonly top: readonly (readonly (readonly [token: number, logit: number])[])[];
}

export interface PeerTiming {
  readonly milliseconds: number;
  /** Tokens that were evaluated in this time. */
  readonly tokens: number;
}

/** Requests run one after another, in the order of the calls. All reject with KloopError. */
export interface Peer {
  readonly info: PeerInfo;
  /** Of the process, for watching that it is idle while others are measured. */
  readonly pid: number;
  setThreads(threads: number): Promise<void>;
  /** Logits after the prompt, by token id. */
  logits(prompt: readonly number[]): Promise<Float32Array>;
  /** Greedy continuation of exactly `tokens` tokens, past any end-of-text. */
  greedy(prompt: readonly number[], tokens: number, top?: number): Promise<PeerGreedy>;
  /**
   * Time of `tokens` tokens, one at a time, after a prompt of `prompt` tokens that is not counted. `evaluate` is
   * evaluation alone (llama-bench's `tg`), the least that llama.cpp takes; `generate` is its library's sampling loop.
   * After `limitMs` it stops with the token it is at: two threads on busy cores can be a hundred times slower than one.
   */
  decode(options: {
    readonly prompt: number;
    readonly tokens: number;
    readonly path: 'evaluate' | 'generate';
    readonly limitMs?: number;
  }): Promise<PeerTiming>;
  /** Time of a prompt of `tokens` tokens (llama-bench's `pp`). */
  prefill(tokens: number): Promise<PeerTiming>;
  /** Ends the process; unfinished requests reject. */
  close(): Promise<void>;
}

const infoSchema = z.object({
  threads: z.number(),
  context: z.number(),
  vocab: z.number(),
  system: z.string(),
  release: z.string(),
});
const logitsSchema = z.object({ logits: z.array(z.number()) });
const greedySchema = z.object({
  tokens: z.array(z.number()),
  top: z.array(z.array(z.tuple([z.number(), z.number()]))).default([]),
});
const timingSchema = z.object({ milliseconds: z.number().positive(), tokens: z.number().int().positive() });
const replySchema = z.discriminatedUnion('ok', [
  z.object({ ok: z.literal(true), result: z.unknown() }),
  z.object({ ok: z.literal(false), error: z.string() }),
]);

/** Starts llama.cpp with a model. Throws UsageError where it is not installed, KloopError where it fails. */
export async function openPeer(options: PeerOptions): Promise<Peer> {
  const { directory = defaultDirectory(), gguf, ...settings } = options;
  const line = new LineProcess(requireRunner(directory));
  try {
    const info = await line.ask(infoSchema, { op: 'load', gguf: resolve(gguf), ...settings });
    return {
      info,
      pid: line.pid,
      setThreads: async (threads) => {
        await line.ask(infoSchema, { op: 'threads', threads });
      },
      logits: async (prompt) => Float32Array.from((await line.ask(logitsSchema, { op: 'logits', prompt })).logits),
      greedy: (prompt, tokens, top = 0) => line.ask(greedySchema, { op: 'greedy', prompt, tokens, top }),
      decode: (request) => line.ask(timingSchema, { op: 'decode', ...request }),
      prefill: (tokens) => line.ask(timingSchema, { op: 'prefill', tokens }),
      close: () => line.close(),
    };
  } catch (error) {
    await line.close();
    throw error;
  }
}

/** bench/peer of this repository: as far up from src/bench as from dist/bench. */
function defaultDirectory(): string {
  return join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'bench', 'peer');
}

/** Path of the peer's program. Throws UsageError, with the command to install it, where it is not there. */
export function requireRunner(directory: string = defaultDirectory()): string {
  const runner = join(directory, 'llama-cpp.mjs');
  if (existsSync(runner) && existsSync(join(directory, 'node_modules', 'node-llama-cpp'))) return runner;
  throw new UsageError('llama.cpp is not installed beside kloop', {
    hint: `run: npm install --prefix ${directory}`,
  });
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** A child process that answers every line with a line. */
class LineProcess {
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly pending: Pending[] = [];
  private readonly exited: Promise<void>;
  private lastWords = '';
  private ended: KloopError | undefined;

  constructor(script: string) {
    this.child = spawn(process.execPath, [script], { cwd: dirname(script) });
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.lastWords = (this.lastWords + text).slice(-500);
    });
    // A write to a process that has just died fails; its exit says so already.
    this.child.stdin.on('error', () => undefined);
    createInterface({ input: this.child.stdout }).on('line', (line) => this.receive(line));
    this.exited = new Promise((done) => {
      this.child.on('error', (error) => {
        this.end(messageOf(error));
        done();
      });
      this.child.on('close', (code, signal) => {
        const words = this.lastWords.trim().split('\n').at(-1) ?? '';
        this.end(`the process ended (${signal ?? `exit code ${code ?? '?'}`})${words === '' ? '' : `: ${words}`}`);
        done();
      });
    });
  }

  get pid(): number {
    return defined(this.child.pid, 'process id of a process that has answered');
  }

  async ask<T extends z.ZodType>(schema: T, request: object): Promise<z.infer<T>> {
    if (this.ended !== undefined) throw this.ended;
    const result = await new Promise<unknown>((resolve, reject) => {
      this.pending.push({ resolve, reject });
      this.child.stdin.write(`${JSON.stringify(request)}\n`);
    });
    const parsed = schema.safeParse(result);
    if (!parsed.success) throw new KloopError('llama.cpp: the peer gave an answer of another shape than expected');
    return parsed.data;
  }

  async close(): Promise<void> {
    this.end('the peer was closed');
    this.child.kill('SIGKILL');
    await this.exited;
  }

  private receive(line: string): void {
    const pending = this.pending.shift();
    if (pending === undefined) return;
    const reply = replySchema.safeParse(parseJson(line));
    if (!reply.success) pending.reject(new KloopError('llama.cpp: the peer gave an answer that is not the protocol'));
    else if (reply.data.ok) pending.resolve(reply.data.result);
    else pending.reject(new KloopError(`llama.cpp: ${reply.data.error}`));
  }

  private end(reason: string): void {
    this.ended ??= new KloopError(`llama.cpp: ${reason}`);
    for (const pending of this.pending.splice(0)) pending.reject(this.ended);
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return undefined;
  }
}
