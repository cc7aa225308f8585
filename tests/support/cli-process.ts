/**
 * Command lines in one process after another (cli-host.mjs), for tests of what a command says rather than of how its process
 * starts and ends, which are slower and use `runCli`.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll } from 'vitest';
import { cliEnvironment, entry, type CliResult } from './cli.js';

const host = fileURLToPath(new URL('cli-host.mjs', import.meta.url));

export type RunInProcess = (args: readonly string[], env?: Readonly<Record<string, string>>) => Promise<CliResult>;

/** Declares that the tests of a file share such a process. Command lines that come together run one by one. */
export function shareCliProcess(): RunInProcess {
  let child: ReturnType<typeof fork>;
  let waiting: { resolve(result: CliResult): void; reject(error: Error): void } | undefined;
  let last: Promise<unknown> = Promise.resolve();
  beforeAll(() => {
    child = fork(host, [entry], {
      env: cliEnvironment(),
      execArgv: [],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    child.on('message', (result: CliResult) => waiting?.resolve(result));
    child.on('exit', (code) => waiting?.reject(new Error(`the command line ended its process, with ${String(code)}`)));
  });
  afterAll(() => {
    waiting = undefined;
    child.kill();
  });
  return (args, env = {}) => {
    const result = last.then(
      () =>
        new Promise<CliResult>((resolve, reject) => {
          waiting = { resolve, reject };
          child.send({ args, env });
        }),
    );
    last = result.catch(() => undefined);
    return result;
  };
}
