/** A child process that answers every line with a line, in order: JSON in both directions. */
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { defined } from '../util/assert.js';
import { KloopError, messageOf } from '../util/errors.js';

const replySchema = z.discriminatedUnion('ok', [
  z.object({ ok: z.literal(true), result: z.unknown() }),
  z.object({ ok: z.literal(false), error: z.string() }),
]);

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class LineProcess {
  private readonly name: string;
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly pending: Pending[] = [];
  private readonly exited: Promise<void>;
  private lastWords = '';
  private ended: KloopError | undefined;

  /**
   * @param name what errors begin with
   * @param signal ends the process, also while it loads
   */
  constructor(name: string, command: string, args: readonly string[], signal?: AbortSignal) {
    this.name = name;
    this.child = spawn(command, args);
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
    signal?.addEventListener('abort', () => void this.close(), { once: true });
  }

  get pid(): number {
    return defined(this.child.pid, 'process id of a process that has answered');
  }

  /** Rejects with KloopError. */
  async ask<T extends z.ZodType>(schema: T, request: object): Promise<z.infer<T>> {
    if (this.ended !== undefined) throw this.ended;
    const result = await new Promise<unknown>((resolve, reject) => {
      this.pending.push({ resolve, reject });
      this.child.stdin.write(`${JSON.stringify(request)}\n`);
    });
    const parsed = schema.safeParse(result);
    if (!parsed.success) throw this.error('the peer gave an answer of another shape than expected');
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
    if (!reply.success) pending.reject(this.error('the peer gave an answer that is not the protocol'));
    else if (reply.data.ok) pending.resolve(reply.data.result);
    else pending.reject(this.error(reply.data.error));
  }

  private end(reason: string): void {
    this.ended ??= this.error(reason);
    for (const pending of this.pending.splice(0)) pending.reject(this.ended);
  }

  private error(reason: string): KloopError {
    return new KloopError(`${this.name}: ${reason}`);
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return undefined;
  }
}
