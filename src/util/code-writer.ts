/** Lines of generated source with indentation. Text with an unfilled hole is refused where it is written. */
import { assert } from './assert.js';

export class CodeWriter {
  private readonly lines: string[] = [];
  private depth = 0;

  /** One statement or comment per line. */
  line(text = ''): void {
    assert(!/\b(undefined|NaN|\[object)/.test(text), `unfilled hole in generated code: ${text}`);
    assert(!text.includes('\n'), `one line at a time: ${text}`);
    this.lines.push(text === '' ? '' : `${'  '.repeat(this.depth)}${text}`);
  }

  /** `head {`, the body one level deeper, `}`. */
  block(head: string, body: () => void, end = '}'): void {
    this.line(head === '' ? '{' : `${head} {`);
    this.depth++;
    body();
    this.depth--;
    this.line(end);
  }

  toString(): string {
    return `${this.lines.join('\n')}\n`;
  }
}
