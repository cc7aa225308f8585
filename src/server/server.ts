/** The server: a socket, the app behind it, and an orderly end in which every request that was taken is answered. */
import type { Server } from 'node:http';
import { createServer, isIP, type AddressInfo, type Server as SocketServer } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import type { Logger } from 'pino';
import type { Model } from '../runtime/model.js';
import type { Machine } from '../simulator/machine.js';
import { messageOf, UsageError } from '../util/errors.js';
import { ApiError } from './api-error.js';
import { createApp } from './app.js';
import { ServerMetrics } from './metrics.js';
import { RequestScopes } from './request-scope.js';
import { ServedModels, type ModelSource } from './served-models.js';
import { defaultLimits, type Access, type ServerLimits } from './settings.js';

export interface ServerOptions {
  /** Closed together with the server; sources are loaded when they are asked for. */
  readonly models: readonly (Model | ModelSource)[];
  /** Names of sources that are loaded before it listens. */
  readonly preload?: readonly string[];
  /** Milliseconds without a request after which a model with a source is unloaded; default 0: never. */
  readonly idleMs?: number;
  readonly log: Logger;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Default 8080; 0 is any free one. */
  readonly port?: number;
  readonly access?: Partial<Access>;
  /** Allow callers from other machines without a key. */
  readonly insecure?: boolean;
  readonly limits?: Partial<ServerLimits>;
  /** This machine, where `kloop calibrate` has measured it: shown on the page. */
  readonly hostMachine?: Machine;
  /** Default `kloop:`. */
  readonly metricsPrefix?: string;
}

export interface RunningServer {
  readonly url: string;
  /** Requests that are being answered. */
  readonly inFlight: number;
  /**
   * Waits at most `drainMs` for the requests under way, ends the rest with an error, and frees the models. Until the last
   * one has ended it still listens: it answers health and metrics, and refuses new requests. May be called again with
   * less time.
   */
  close(drainMs?: number): Promise<void>;
}

/** How long the last words may take to be sent, in milliseconds. */
const lastWordsMs = 1000;

/**
 * Starts to listen. Throws UsageError where it would be open to other machines without a key, or the address is not to
 * be had, and what loading a model throws; the models are then closed.
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { host = '127.0.0.1', port = 8080, log, insecure = false } = options;
  const { apiKey, allowedHosts = [], allowedOrigins = [] } = options.access ?? {};
  if (!isLoopback(host) && apiKey === undefined && !insecure) {
    throw new UsageError(`${host} can be reached from other machines, and there is no API key`, {
      hint: 'set a key, or say --insecure if everyone who reaches it may use it',
    });
  }
  const limits = { ...defaultLimits, ...options.limits };
  const models = new ServedModels(options.models, { limits, log, idleMs: options.idleMs ?? 0 });
  const metrics = new ServerMetrics(() => models.loaded, options.metricsPrefix);
  const scopes = new RequestScopes();
  const state = { draining: false };
  const names = isIP(host) === 0 ? [host.toLowerCase()] : [];
  const access = {
    ...(apiKey === undefined ? {} : { apiKey }),
    allowedHosts: [...names, ...allowedHosts.map((name) => name.toLowerCase())],
    allowedOrigins,
  };
  const app = createApp({
    models,
    access,
    limits,
    metrics,
    scopes,
    log,
    draining: () => state.draining,
    hostMachine: options.hostMachine,
  });
  const server = createAdaptorServer({
    fetch: app.fetch,
    overrideGlobalObjects: false,
    serverOptions: {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.receiveMs,
      requestTimeout: limits.receiveMs,
      connectionsCheckingInterval: Math.max(1, Math.min(5000, limits.receiveMs / 2)),
      keepAliveTimeout: 10_000,
    },
  }) as Server;
  server.maxConnections = limits.connections;
  try {
    if (options.preload !== undefined && options.preload.length > 0) await checkAddress(host, port);
    for (const name of options.preload ?? []) await models.with(name, () => undefined);
    await listen(server, host, port);
  } catch (error) {
    await models.close();
    throw reasonOf(error);
  }
  const address = server.address() as AddressInfo;
  const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return new Running(`http://${shown}:${address.port}`, server, models, scopes, state);
}

class Running implements RunningServer {
  #closing: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  constructor(
    readonly url: string,
    private readonly server: Server,
    private readonly models: ServedModels,
    private readonly scopes: RequestScopes,
    private readonly state: { draining: boolean },
  ) {}

  get inFlight(): number {
    return this.scopes.count;
  }

  close(drainMs = 0): Promise<void> {
    this.state.draining = true;
    this.#closing ??= this.#close();
    const timer = setTimeout(() => {
      this.scopes.abortAll('shutdown');
      void this.#stopListening();
      this.#hangUpSoon();
    }, drainMs);
    return this.#closing.finally(() => clearTimeout(timer));
  }

  async #close(): Promise<void> {
    await this.scopes.idle();
    const closed = this.#stopListening();
    // Whoever is connected still has asked for nothing, or does not read.
    this.#hangUpSoon();
    await closed;
    await this.models.close();
  }

  #stopListening(): Promise<void> {
    this.#closed ??= new Promise((resolve) => this.server.close(() => resolve()));
    return this.#closed;
  }

  #hangUpSoon(): void {
    setTimeout(() => this.server.closeAllConnections(), lastWordsMs).unref();
  }
}

/** What loading failed with, which a client is not told. */
function reasonOf(error: unknown): unknown {
  if (!(error instanceof ApiError)) return error;
  return error.cause ?? new UsageError(error.message, { hint: 'ask for fewer --slots or a smaller --context' });
}

/** Before a model is loaded, which can take minutes. */
async function checkAddress(host: string, port: number): Promise<void> {
  const server = createServer();
  await listen(server, host, port);
  await new Promise((resolve) => server.close(resolve));
}

/** What usually is the reason, in words. */
const listenProblems: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there',
  EADDRNOTAVAIL: 'this machine has no such address',
  EACCES: 'it is not allowed',
  ENOTFOUND: 'there is no such host',
};

function listen(server: SocketServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason = listenProblems[error.code ?? ''] ?? messageOf(error);
      reject(
        new UsageError(`cannot listen on ${host}:${port}: ${reason}`, {
          hint: 'choose another --port or --host',
          cause: error,
        }),
      );
    });
    server.listen({ host, port }, resolve);
  });
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
