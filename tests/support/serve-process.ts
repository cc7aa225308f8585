/** `kloop serve` as a process, from the line with its address on. */
import type { ChildProcess } from 'node:child_process';
import { runCli, type CliOptions, type CliResult } from './cli.js';

export interface Served {
  readonly url: string;
  readonly child: ChildProcess;
  readonly ended: Promise<CliResult>;
}

/** Resolves when it listens, on a free port; rejects where it ends before. */
export function startServe(args: readonly string[], options: Omit<CliOptions, 'onStderr'> = {}): Promise<Served> {
  return new Promise((resolve, reject) => {
    let log = '';
    const ended = runCli(['serve', '--port', '0', '--slots', '2', ...args], {
      ...options,
      onStderr: (text, child) => {
        log += text;
        const url = /"url":"([^"]+)"/.exec(log)?.[1];
        if (url !== undefined) resolve({ url, child, ended });
      },
    });
    void ended.then(({ stderr }) => reject(new Error(stderr)));
  });
}

/** Asks for a text, of the tiny model unless told. */
export function complete(url: string, body: object, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ model: 'tiny', prompt: 'Once', ...body }),
  });
}
