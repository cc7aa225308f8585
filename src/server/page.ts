/**
 * The web page at `/`: files that `vite build` made of web/, read once. They hold nothing of a model, so that they are
 * served without a key; what they ask for is not.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Hono } from 'hono';
import type { AppEnv } from './answer.js';

/** At the same depth below src/ and dist/. */
const directory = fileURLToPath(new URL('../../dist/web/', import.meta.url));

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Own scripts and styles from files, requests to this server, and nothing else. */
const contentPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** True for paths of the page. */
export function isPagePath(path: string): boolean {
  return path === '/' || path.startsWith('/assets/');
}

/** A route for every file that is there: no path of a request is ever looked up in a directory. */
export function addPage(app: Hono<AppEnv>): void {
  const file = (path: string, name: string, caching: string): void => {
    const content = readFileSync(join(directory, name));
    const type = types[extname(name)] ?? 'application/octet-stream';
    app.get(path, (context) => {
      context.header('Content-Security-Policy', contentPolicy);
      context.header('Cache-Control', caching);
      return context.body(new Uint8Array(content), 200, { 'Content-Type': type });
    });
  };
  if (!existsSync(join(directory, 'index.html'))) return;
  file('/', 'index.html', 'no-cache');
  // Their names change with their content.
  for (const name of readdirSync(join(directory, 'assets'))) {
    file(`/assets/${name}`, join('assets', name), 'public, max-age=31536000, immutable');
  }
}
