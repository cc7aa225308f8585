/** The worker thread's side of an executable: an engine, which answers requests one at a time. */
import { parentPort } from 'node:worker_threads';
import { defined } from '../util/assert.js';
import type { Counters, Step, StepResult, TokenListener } from './backend.js';
import { serializeError, type EngineAddress, type Reply, type Request, type TokenNotice } from './messages.js';

/** Programs that are ready to run, with their weights and state. */
export interface Engine {
  /** What the other thread needs to stop a running kernel. */
  readonly engineAddress: EngineAddress;
  run(step: Step, onToken: TokenListener | undefined): Promise<StepResult>;
  reset(): void;
  counters(): Counters;
  close(): void;
}

/** @param open makes the engine, when the first request comes; what it throws is the answer */
export function serveEngine(open: () => Engine): void {
  const port = defined(parentPort ?? undefined, 'the port of a worker thread');
  let engine: Engine | undefined;

  // They leave at once, though this thread takes no message before the request has ended.
  const noticesOf =
    (id: number): TokenListener =>
    (sample, token) =>
      port.postMessage({ id, sample, token } satisfies TokenNotice);

  const answer = async (request: Request): Promise<Omit<Reply, 'id' | 'counters'>> => {
    engine ??= open();
    switch (request.kind) {
      case 'open':
        return { address: engine.engineAddress };
      case 'run':
        return { result: await engine.run(request.step, request.wantsTokens ? noticesOf(request.id) : undefined) };
      case 'reset':
        engine.reset();
        return {};
      case 'close':
        engine.close();
        return {};
      default:
        return request satisfies never;
    }
  };

  // Requests come one at a time: the executable waits for each answer before it sends the next.
  port.on('message', (request: Request) => {
    void answer(request).then(
      (reply) => {
        const counters = request.kind === 'close' ? undefined : engine?.counters();
        port.postMessage({ id: request.id, ...reply, ...(counters === undefined ? {} : { counters }) });
      },
      (error: unknown) => {
        port.postMessage({ id: request.id, error: serializeError(error) });
      },
    );
  });
}
