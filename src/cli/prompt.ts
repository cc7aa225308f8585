/** The text of `--prompt`, where `-` means stdin. */
import { UsageError } from '../util/errors.js';

const maxPromptBytes = 16 * 1024 * 1024;

export async function promptText(option: string): Promise<string> {
  if (option !== '-') return option;
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of process.stdin as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > maxPromptBytes) {
      throw new UsageError(`the prompt on stdin is longer than ${maxPromptBytes} bytes`, { hint: 'shorten it' });
    }
    pieces.push(piece);
  }
  // `echo text |` ends with a newline that nobody means.
  return Buffer.concat(pieces)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}
