/** Where the command line writes: results to stdout, everything for people to stderr; colour only on a terminal. */
import { styleText } from 'node:util';
import { ProgressBar } from '../util/progress.js';

/** A result. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The one object of `--json`. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** Something for the person at the terminal. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

export type Style = Parameters<typeof styleText>[0];

/** `text` in a style, where `stream` is a terminal with colours (NO_COLOR is respected). */
export function paint(stream: NodeJS.WriteStream, style: Style, text: string): string {
  return stream.isTTY && stream.hasColors() ? styleText(style, text) : text;
}

/** A model may write anything; on a terminal, control characters other than tab and newline could do harm. */
export function forTerminal(text: string, stream: NodeJS.WriteStream): string {
  // eslint-disable-next-line no-control-regex -- control characters are what this is about
  return stream.isTTY ? text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '') : text;
}

/** Shows the progress of `work` on stderr, and whether it came to its end. */
export async function withProgressBar<T>(work: (bar: ProgressBar) => Promise<T>): Promise<T> {
  const bar = new ProgressBar({ stream: process.stderr });
  try {
    const result = await work(bar);
    bar.end();
    return result;
  } finally {
    bar.stop();
  }
}
