/** `kloop serve` in a process of its own, as its users run it. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { KloopError } from '../../util/errors.js';

export interface ServeProcess {
  readonly url: string;
  readonly pid: number;
  /** Ends it as an operator does, and resolves when it has ended. */
  stop(): Promise<void>;
}

/** At the same depth below src/ and dist/. */
const entry = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));

/** Resolves when it listens, on a free port. @throws KloopError with its last words where it ends before */
export function startServe(model: string, args: readonly string[] = []): Promise<ServeProcess> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [entry, 'serve', model, '--port', '0', ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const ended = new Promise<void>((end) => child.once('exit', () => end()));
    let lastLine = '';
    createInterface({ input: child.stderr }).on('line', (line) => {
      lastLine = line;
      const url = listeningUrl(line);
      if (url === undefined) return;
      resolve({
        url,
        pid: child.pid ?? 0,
        stop: async () => {
          child.kill('SIGTERM');
          await ended;
        },
      });
    });
    child.once('error', reject);
    child.once('exit', () => reject(new KloopError(`kloop serve ended: ${lastLine}`)));
  });
}

function listeningUrl(line: string): string | undefined {
  if (!line.startsWith('{')) return undefined;
  const { msg, url } = JSON.parse(line) as { msg?: string; url?: string };
  return msg === 'listening' ? url : undefined;
}
