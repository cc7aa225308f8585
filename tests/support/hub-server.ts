/**
 * A small Hugging Face Hub on 127.0.0.1 for tests: lists files, serves them with Range support, and misbehaves on
 * request. Records what it was asked for.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export const commit = 'c0ffee'.padEnd(40, '0');

export interface FakeFile {
  readonly content: Buffer;
  /** Large files are listed with a sha256, small ones with a git object id. */
  readonly lfs?: boolean;
}

export interface SeenRequest {
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** Answers one request itself and returns true, or leaves it to the server. */
export type Misbehaviour = (
  request: { name: string; start: number; content: Buffer; count: number },
  response: ServerResponse,
) => boolean | Promise<boolean>;

export interface FakeHub {
  readonly endpoint: string;
  readonly seen: SeenRequest[];
  /** The ranges asked for one file. */
  ranges(name: string): (string | undefined)[];
  close(): Promise<void>;
}

export interface FakeHubOptions {
  readonly files: Readonly<Record<string, FakeFile>>;
  /** Entries of the list that are sent as they are, after those of `files`. */
  readonly extraEntries?: readonly unknown[];
  /** Status for every request without this token. */
  readonly token?: string;
  readonly status?: number;
  readonly misbehave?: Misbehaviour;
  readonly ignoreRange?: boolean;
  /** Raw replacement of the answer to the revision request. */
  readonly revision?: unknown;
  /** `Link` header of the list, from the address of the request. */
  link?(address: string): string;
}

export async function startHub(options: FakeHubOptions): Promise<FakeHub> {
  const seen: SeenRequest[] = [];
  const counts = new Map<string, number>();
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://hub');
    const { range, authorization } = request.headers;
    seen.push({ path: url.pathname, range, authorization });
    if (options.token !== undefined && authorization !== `Bearer ${options.token}`) {
      response.writeHead(options.status ?? 401).end();
    } else if (url.pathname.startsWith('/api/models/acme/tiny/revision/')) {
      sendJson(response, options.revision ?? { _id: 'x', id: 'acme/tiny', sha: commit, lastModified: '2024-01-01' });
    } else if (url.pathname === `/api/models/acme/tiny/tree/${commit}`) {
      const link = options.link?.(`http://${request.headers.host ?? ''}${request.url ?? ''}`);
      if (link !== undefined) response.setHeader('link', link);
      sendJson(response, [...Object.entries(options.files).map(listEntry), ...(options.extraEntries ?? [])]);
    } else {
      const name = url.pathname.replace(`/acme/tiny/resolve/${commit}/`, '');
      const file = options.files[name];
      if (file === undefined) response.writeHead(404).end();
      else await serveFile(name, file.content, range, response);
    }
  };
  const serveFile = async (name: string, content: Buffer, range: string | undefined, response: ServerResponse) => {
    const start = options.ignoreRange === true ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    const count = (counts.get(name) ?? 0) + 1;
    counts.set(name, count);
    if ((await options.misbehave?.({ name, start, content, count }, response)) === true) return;
    if (start > 0) {
      response.setHeader('content-range', `bytes ${start}-${content.length - 1}/${content.length}`);
      response.statusCode = 206;
    }
    response.setHeader('content-length', content.length - start);
    response.end(content.subarray(start));
  };
  const server = createServer((request, response) => void serve(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    ranges: (name) => seen.filter(({ path }) => path.endsWith(`/${name}`)).map(({ range }) => range),
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function sendJson(response: ServerResponse, json: unknown): void {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(json));
}

export function gitSha1(content: Buffer): string {
  return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
}

export function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

function listEntry([path, { content, lfs }]: [string, FakeFile]): unknown {
  const entry = { type: 'file', path, size: content.length, oid: gitSha1(content) };
  return lfs === true ? { ...entry, lfs: { oid: sha256(content), size: content.length, pointerSize: 130 } } : entry;
}

/** Sends the announced head and the first `bytes` of the rest, then cuts the connection. */
export function cutAfter(bytes: number, start: number, content: Buffer, response: ServerResponse): true {
  if (start > 0) {
    response.writeHead(206, { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` });
  } else {
    response.writeHead(200, { 'content-length': content.length });
  }
  response.write(content.subarray(start, start + bytes), () => setTimeout(() => response.destroy(), 20));
  return true;
}
