/**
 * Lines that a person types or a pipe sends. On a terminal every line has an editor of its own, so that between lines
 * Ctrl+C is an ordinary signal; a pipe is read by one reader, since it may hold many lines already.
 */
import { createInterface, type Interface } from 'node:readline';

export type LineEvent =
  | { readonly kind: 'line'; readonly text: string }
  /** Ctrl+C; `empty`: nothing had been typed. */
  | { readonly kind: 'interrupt'; readonly empty: boolean }
  /** Ctrl+D, or the end of the pipe. */
  | { readonly kind: 'end' };

export interface LineSource {
  next(): Promise<LineEvent>;
  close(): void;
}

export function lineSource(prompt: string): LineSource {
  return process.stdin.isTTY ? terminalLines(prompt) : pipedLines();
}

function terminalLines(prompt: string): LineSource {
  let history: string[] = [];
  return {
    next: () =>
      new Promise((resolve) => {
        const reader = createInterface({
          input: process.stdin,
          output: process.stdout,
          terminal: true,
          prompt,
          history,
        });
        const finish = (event: LineEvent): void => {
          reader.off('close', onEnd);
          reader.close();
          resolve(event);
        };
        const onEnd = (): void => finish({ kind: 'end' });
        reader.on('history', (lines) => (history = [...lines]));
        reader.once('line', (text) => finish({ kind: 'line', text }));
        reader.once('SIGINT', () => finish({ kind: 'interrupt', empty: reader.line === '' }));
        reader.once('close', onEnd);
        reader.prompt();
      }),
    close: () => undefined,
  };
}

function pipedLines(): LineSource {
  const reader: Interface = createInterface({ input: process.stdin, terminal: false });
  const lines = reader[Symbol.asyncIterator]();
  return {
    next: async () => {
      const result: IteratorResult<string, unknown> = await lines.next();
      return result.done === true ? { kind: 'end' } : { kind: 'line', text: result.value };
    },
    close: () => reader.close(),
  };
}
