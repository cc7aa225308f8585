/** An executable that is a handle to a worker thread, which makes the kernel calls one request after another. */
import { Worker } from 'node:worker_threads';
import { assert } from '../util/assert.js';
import { AbortedError } from '../util/errors.js';
import type { Counters, Executable, MemoryArea, StageTime, Step, StepResult, TokenListener } from './backend.js';
import {
  deserializeError,
  type EngineAddress,
  type Reply,
  type Request,
  type TokenNotice,
  type WorkerSetup,
} from './messages.js';

type RequestBody = Request extends infer R ? (R extends Request ? Omit<R, 'id'> : never) : never;

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
  readonly onToken: TokenListener | undefined;
}

export class WorkerExecutable implements Executable {
  readonly threads: number;
  readonly showsTokens: boolean;
  stageTimes?: () => readonly StageTime[];
  weightsArea?: MemoryArea;
  counters: Counters = { kernelCalls: 0, barriers: 0, tokens: 0, bytesRead: 0, waitNs: 0 };
  private readonly waiting = new Map<number, Waiting>();
  private nextId = 0;
  private queue: Promise<unknown> = Promise.resolve();
  private closing: Promise<void> | undefined;
  private failure: Error | undefined;
  private aborts = 0;
  private address: EngineAddress = 0n;

  private constructor(
    private readonly worker: Worker,
    private readonly signal: (engine: EngineAddress, aborted: boolean) => void,
    private readonly setup: WorkerSetup,
  ) {
    this.threads = setup.threads;
    this.showsTokens = setup.showsTokens;
    worker.on('message', (message: Reply | TokenNotice) => this.receive(message));
    worker.on('error', (error: Error) => this.fail(error));
    worker.on('exit', () => this.fail(new Error('the worker thread ended')));
  }

  /**
   * @param workerFile compiled, because worker threads run JavaScript
   * @param signal tells a running kernel to stop, or that it need not, from this thread
   */
  static async start(
    workerFile: URL,
    setup: WorkerSetup,
    signal: (engine: EngineAddress, aborted: boolean) => void,
  ): Promise<WorkerExecutable> {
    const executable = new WorkerExecutable(new Worker(workerFile, { workerData: setup }), signal, setup);
    try {
      const { address } = await executable.request({ kind: 'open' });
      assert(address !== undefined, 'the worker gave no engine');
      executable.address = address;
      return executable;
    } catch (error) {
      await executable.worker.terminate();
      throw error;
    }
  }

  get engineAddress(): EngineAddress {
    return this.address;
  }

  run(step: Step, onToken?: TokenListener): Promise<StepResult> {
    if (this.closing !== undefined) return Promise.reject(new AbortedError('the model is closed'));
    const asked = this.aborts;
    return this.enqueue(async () => {
      // An abort counts for every request made before it, begun or not.
      this.setAborted(this.aborts !== asked);
      const wantsTokens = onToken !== undefined;
      const { result } = await this.request({ kind: 'run', step, wantsTokens }, onToken);
      assert(result !== undefined, 'the worker gave no result');
      return result;
    });
  }

  abort(): void {
    this.aborts++;
    this.setAborted(true);
  }

  reset(): Promise<void> {
    return this.enqueue(async () => {
      await this.request({ kind: 'reset' });
    });
  }

  close(): Promise<void> {
    if (this.closing === undefined) {
      this.abort();
      this.closing = this.enqueue(async () => {
        if (this.failure === undefined) await this.request({ kind: 'close' });
        await this.worker.terminate();
      });
    }
    return this.closing;
  }

  /** Between kernel calls the host loop looks at the flag, inside a call the kernel at the engine's own. */
  private setAborted(aborted: boolean): void {
    Atomics.store(this.setup.aborted, 0, aborted ? 1 : 0);
    if (this.address !== 0n && this.failure === undefined && this.closing === undefined) {
      this.signal(this.address, aborted);
    }
  }

  private enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined);
    return result;
  }

  private request(body: RequestBody, onToken?: TokenListener): Promise<Reply> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onToken });
      this.worker.postMessage({ id, ...body });
    });
  }

  private receive(reply: Reply | TokenNotice): void {
    const waiting = this.waiting.get(reply.id);
    if ('token' in reply) {
      waiting?.onToken?.(reply.sample, reply.token);
      return;
    }
    this.waiting.delete(reply.id);
    if (reply.counters !== undefined) this.counters = reply.counters;
    if (reply.error !== undefined) waiting?.reject(deserializeError(reply.error));
    else waiting?.resolve(reply);
  }

  private fail(error: Error): void {
    this.failure ??= error;
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
