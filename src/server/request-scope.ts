/** Everything that can end the work on a request before it is done: its client, the clock, and the end of the server. */
import { ApiError } from './api-error.js';

/** `client`: it is gone or does not read; `deadline`: the time is up; `shutdown`: the server ends. */
export type EndReason = 'client' | 'deadline' | 'shutdown';

export class RequestScope {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #onEnd: () => void;
  #reason: EndReason | undefined;
  #ended = false;
  readonly #deferred: (() => void)[] = [];

  /** `client` aborts when the connection closes; `onEnd` is called once, when the work is over. */
  constructor(timeMs: number, client: AbortSignal, onEnd: (scope: RequestScope) => void = () => undefined) {
    this.#timer = setTimeout(() => this.abort('deadline'), timeMs);
    const onAbort = (): void => this.abort('client');
    if (client.aborted) onAbort();
    else client.addEventListener('abort', onAbort, { once: true });
    this.#onEnd = () => {
      client.removeEventListener('abort', onAbort);
      onEnd(this);
    };
  }

  /** Its reason is the ApiError that answers the request. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why it was aborted, if it was. */
  get reason(): EndReason | undefined {
    return this.#reason;
  }

  abort(reason: EndReason): void {
    if (this.#reason !== undefined || this.#ended) return;
    this.#reason = reason;
    this.#controller.abort(errorOf(reason));
  }

  /** To be done when the work is over. */
  defer(task: () => void): void {
    this.#deferred.push(task);
  }

  /** The work is over. May be called again. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    for (const task of this.#deferred) task();
    this.#onEnd();
  }
}

function errorOf(reason: EndReason): ApiError {
  switch (reason) {
    case 'deadline':
      return new ApiError('the request waited for too long', { status: 503, code: 'overloaded', retryAfter: 60 });
    case 'shutdown':
      return new ApiError('the server is shutting down', { status: 503, code: 'shutting_down', retryAfter: 1 });
    case 'client':
      return new ApiError('the client is gone', { status: 400, code: 'client_closed_request' });
    default:
      return reason satisfies never;
  }
}

/** The requests under way. */
export class RequestScopes {
  readonly #open = new Set<RequestScope>();

  #idle: () => void = () => undefined;

  open(timeMs: number, client: AbortSignal): RequestScope {
    const scope = new RequestScope(timeMs, client, (ended) => {
      this.#open.delete(ended);
      if (this.#open.size === 0) this.#idle();
    });
    this.#open.add(scope);
    return scope;
  }

  get count(): number {
    return this.#open.size;
  }

  /** Waits until none is under way. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle = resolve;
      if (this.#open.size === 0) resolve();
    });
  }

  abortAll(reason: EndReason): void {
    for (const scope of [...this.#open]) scope.abort(reason);
  }
}
