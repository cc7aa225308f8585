/**
 * Requests to a Hub: who may see the token, what a status means to the user, how long to wait and how often to try.
 * A server is not trusted: answers are bounded in size and time, and addresses it names must be its own.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { AbortedError, DownloadError, messageOf } from '../../util/errors.js';
import { plain } from '../../util/checked.js';

export interface HubConnection {
  readonly endpoint: string;
  readonly repo: string;
  readonly token: string | undefined;
  readonly signal: AbortSignal | undefined;
  /** Wait before the first repetition; doubles each time. */
  readonly retryDelayMs: number;
  /** A connection that sends nothing for this long is given up. */
  readonly idleTimeoutMs: number;
}

/** A failure that may pass: the network, or a server that says "later". */
export class TransientError extends Error {
  constructor(
    message: string,
    readonly retryAfterMs = 0,
  ) {
    super(message);
  }
}

/** The server has nothing at the position that was asked for. */
export class RangeRefusedError extends TransientError {}

export function stopIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortedError('the download was stopped');
}

const maxAnswerBytes = 64 * 1024 * 1024;
const maxRetryAfterMs = 60_000;
const maxFailuresInARow = 5;
const maxRequests = 1000;

/** Runs `attempt` until it succeeds, fails for good, or was transient five times without `progressed` in between. */
export async function withRetries<T>(
  hub: HubConnection,
  attempt: () => Promise<T>,
  progressed: () => boolean = () => false,
): Promise<T> {
  let failures = 0;
  // A server that always sends a little and cuts would otherwise keep us for ever.
  for (let total = 1; ; total += 1) {
    stopIfAborted(hub.signal);
    try {
      return await attempt();
    } catch (error) {
      stopIfAborted(hub.signal);
      if (!(error instanceof TransientError)) throw error;
      failures = progressed() ? 1 : failures + 1;
      if (failures >= maxFailuresInARow || total >= 100) {
        throw new DownloadError(`${hub.endpoint}: ${error.message}, given up after ${total} attempts`, {
          hint: 'check the network and run the same command again: it goes on where it stopped',
          cause: error,
        });
      }
      const wait = Math.max(hub.retryDelayMs * 2 ** (failures - 1), Math.min(error.retryAfterMs, maxRetryAfterMs));
      await sleep(wait, undefined, hub.signal === undefined ? {} : { signal: hub.signal }).catch(() => undefined);
    }
  }
}

/** An answer with a deadline between pieces. */
export interface OpenResponse {
  readonly response: Response;
  /** Pieces of the body; throws TransientError when the connection is cut or silent. */
  body(): AsyncGenerator<Uint8Array, void>;
  /** Drops the connection; to be called in any case. */
  close(): void;
}

/** One request. Throws DownloadError for statuses that will not change, TransientError for those that may. */
export async function openUrl(hub: HubConnection, url: string, headers: Record<string, string>): Promise<OpenResponse> {
  const controller = new AbortController();
  const stop = () => controller.abort();
  hub.signal?.addEventListener('abort', stop);
  const timer = setTimeout(stop, hub.idleTimeoutMs);
  const close = () => {
    clearTimeout(timer);
    hub.signal?.removeEventListener('abort', stop);
    controller.abort();
  };
  const transient = (error: unknown) =>
    new TransientError(
      controller.signal.aborted ? 'the server does not answer' : `the connection broke (${reasonOf(error)})`,
    );
  try {
    const authorization = hub.token === undefined ? {} : { authorization: `Bearer ${hub.token}` };
    // Redirects to a storage host are followed; fetch drops the token where the host changes.
    const response = await fetch(url, {
      headers: { 'accept-encoding': 'identity', ...authorization, ...headers },
      signal: controller.signal,
    }).catch((error: unknown) => Promise.reject(transient(error)));
    checkStatus(hub, response);
    return {
      response,
      close,
      async *body() {
        if (response.body === null) return;
        const reader = response.body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
        for (;;) {
          timer.refresh();
          const { done, value } = await reader.read().catch((error: unknown) => Promise.reject(transient(error)));
          if (done) return;
          yield value;
        }
      },
    };
  } catch (error) {
    close();
    throw error;
  }
}

function reasonOf(error: unknown): string {
  const cause: unknown = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return plain(messageOf(cause), 120);
}

function checkStatus(hub: HubConnection, response: Response): void {
  if (response.ok) return;
  const { status } = response;
  const page = `${hub.endpoint}/${hub.repo}`;
  if (status === 416) throw new RangeRefusedError('the server refuses the rest of a file');
  if (status === 429 || status >= 500) {
    const seconds = Number(response.headers.get('retry-after'));
    throw new TransientError(`the server answers with status ${status}`, Number.isFinite(seconds) ? seconds * 1000 : 0);
  }
  switch (status) {
    case 401:
      throw new DownloadError(`${page}: not found, or not without a valid token (status 401)`, {
        hint: 'check the name, or set HF_TOKEN to a token that may read it',
      });
    case 403:
      throw new DownloadError(`${page}: access is restricted (status 403)`, {
        hint: 'accept the conditions on the page of the model, and set HF_TOKEN to a token of that account',
      });
    case 404:
      throw new DownloadError(`${page}: not found (status 404)`, { hint: 'check owner, name and revision' });
    default:
      throw new DownloadError(`${page}: the server answers with status ${status}`);
  }
}

/**
 * `fetch` for a client library: token and retries added, the whole answer read within bounds. Only addresses of the
 * endpoint are asked.
 */
export function boundedFetch(hub: HubConnection): typeof fetch {
  let requests = 0;
  return async (input) => {
    requests += 1;
    if (requests > maxRequests) throw new DownloadError(`${hub.endpoint}: the list of files does not end`);
    const url = input instanceof Request ? input.url : input.toString();
    if (new URL(url).origin !== new URL(hub.endpoint).origin) {
      throw new DownloadError(`${hub.endpoint}: the server refers to another host for its list of files`);
    }
    return withRetries(hub, async () => {
      const open = await openUrl(hub, url, { accept: 'application/json' });
      try {
        const pieces: Uint8Array[] = [];
        let bytes = 0;
        for await (const piece of open.body()) {
          bytes += piece.length;
          if (bytes > maxAnswerBytes)
            throw new DownloadError(`${hub.endpoint}: the list of files is unreasonably long`);
          pieces.push(piece);
        }
        return new Response(Buffer.concat(pieces), { headers: open.response.headers });
      } finally {
        open.close();
      }
    });
  };
}
