/** Runs the built command line as a user does: a process, its exit code, and what it wrote. */
import { spawn, type ChildProcess } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The built command line. */
export const entry = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  /** Sent to stdin, which is closed then. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** A command that runs the one it is followed by. */
  readonly wrap?: readonly string[];
  /** Sees the process when it has started, and every piece of stdout. */
  readonly onStdout?: (text: string, child: ChildProcess) => void;
  readonly onStderr?: (text: string, child: ChildProcess) => void;
}

/** Plain output, and a cache that tests share. */
export function cliEnvironment(): Record<string, string | undefined> {
  return { ...process.env, NO_COLOR: '1', XDG_CACHE_HOME: join(tmpdir(), 'kloop-test-cache') };
}

/** Never rejects; a process that does not end is killed by the time limit of the test. */
export function runCli(
  args: readonly string[],
  { input = '', env = {}, wrap = [], onStdout, onStderr }: CliOptions = {},
): Promise<CliResult> {
  return new Promise((resolve) => {
    const [command, ...rest] = [...wrap, process.execPath, entry, ...args] as [string, ...string[]];
    const child = spawn(command, rest, {
      env: { ...cliEnvironment(), ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: 100_000,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      onStdout?.(text, child);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
      onStderr?.(text, child);
    });
    // A process that ends before it has read everything is one of the cases.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** The lines of a text that ends with a newline. */
export function linesOf(text: string): string[] {
  return text.split('\n').slice(0, -1);
}
