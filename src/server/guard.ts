/**
 * Who may call. A web page that a person looks at can reach a server on their machine, so names and origins are checked
 * even there: `Host` against DNS rebinding, `Origin` against requests from foreign pages. The key is compared in constant
 * time.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { Context, MiddlewareHandler } from 'hono';
import { ApiError } from './api-error.js';
import { isPagePath } from './page.js';
import type { Access } from './settings.js';

/** Answers load nothing and are shown in no page; the page at `/` has a policy of its own. */
const securityHeaders = {
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
} as const;

/** Checks host, origin and key, in this order, and answers preflight requests. Throws ApiError 401 or 403. */
export function guard(access: Access): MiddlewareHandler {
  const isKey = access.apiKey === undefined ? () => true : keyCheck(access.apiKey);
  return async (context, next) => {
    for (const [name, value] of Object.entries(securityHeaders)) context.header(name, value);
    checkHost(context, access.allowedHosts);
    const foreign = checkOrigin(context, access.allowedOrigins);
    if (foreign !== undefined) {
      context.header('Access-Control-Allow-Origin', foreign);
      context.header('Access-Control-Expose-Headers', 'x-request-id, retry-after');
      context.header('Vary', 'Origin');
      if (context.req.method === 'OPTIONS') return preflight(context);
    }
    const { path } = context.req;
    const isPublic = /^\/health(\/(live|ready))?$/.test(path) || isPagePath(path);
    if (!isPublic && !isKey(context.req.header('authorization'))) {
      throw new ApiError('a valid API key is wanted: `Authorization: Bearer KEY`', {
        status: 401,
        code: 'invalid_api_key',
      });
    }
    return next();
  };
}

function checkHost(context: Context, allowed: readonly string[]): void {
  const host = context.req.header('host') ?? '';
  const name = /^(\[[^\]]*\]|[^:]*)(:\d+)?$/.exec(host)?.[1]?.toLowerCase() ?? '';
  // A name can be made to point here; an address cannot.
  const isAddress = isIP(name.replace(/^\[|\]$/g, '')) !== 0;
  if (isAddress || name === 'localhost' || name.endsWith('.localhost')) return;
  if (name !== '' && (allowed.includes(name) || allowed.includes('*'))) return;
  throw new ApiError('this server does not answer to that name; start it with --allow-host NAME', {
    status: 403,
    code: 'host_not_allowed',
  });
}

/** The origin where it is another one, and allowed. Its own has the Host that was checked, under https before a proxy. */
function checkOrigin(context: Context, allowed: readonly string[]): string | undefined {
  const origin = context.req.header('origin');
  if (origin === undefined) return undefined;
  const host = context.req.header('host');
  if (origin === `http://${host}` || origin === `https://${host}`) return undefined;
  if (allowed.includes(origin) || allowed.includes('*')) return origin;
  throw new ApiError('web pages of that origin may not call this server; start it with --allow-origin ORIGIN', {
    status: 403,
    code: 'origin_not_allowed',
  });
}

function preflight(context: Context): Response {
  context.header('Access-Control-Allow-Methods', 'GET, POST');
  const headers = context.req.header('access-control-request-headers');
  if (headers !== undefined) context.header('Access-Control-Allow-Headers', headers);
  context.header('Access-Control-Max-Age', '600');
  return context.body(null, 204);
}

function keyCheck(key: string): (authorization: string | undefined) => boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  const wanted = digest(key);
  return (authorization = '') => {
    const given = /^Bearer +(.*)$/i.exec(authorization)?.[1];
    return given !== undefined && timingSafeEqual(digest(given), wanted);
  };
}
