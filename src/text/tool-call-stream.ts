/**
 * Takes the calls of tools out of a text that comes in pieces. What may become a call is held back until it is one; what
 * turns out to be none is text like any other, so that nothing is ever lost.
 */
import { ToolCallEnd } from './tool-call-end.js';
import type { ToolCall, ToolFormat } from './tool-formats.js';

export interface ToolPiece {
  /** Text that belongs to no call. */
  readonly text: string;
  /** Calls that have become complete. */
  readonly calls: readonly ToolCall[];
}

export class ToolCallStream {
  #held = '';
  /** White space in front of what may be a call, which is part of the text only if it is none. */
  #layout = '';
  /** Inside of something that may be a call, and looking for its end. */
  #end: ToolCallEnd | undefined;
  /** Nothing but calls and white space so far. */
  #onlyCalls = true;
  #calls = 0;

  /** Calls of other tools than `names` are text. */
  constructor(
    private readonly format: ToolFormat,
    private readonly names: ReadonlySet<string>,
  ) {}

  push(text: string): ToolPiece {
    this.#held += text;
    return this.#take(false);
  }

  /** The text has ended. */
  end(): ToolPiece {
    return this.#take(true);
  }

  #take(ended: boolean): ToolPiece {
    let text = '';
    const calls: ToolCall[] = [];
    for (;;) {
      if (this.#end !== undefined) {
        const taken = this.#takePart(this.#end, ended);
        if (taken === undefined) break;
        this.#end = undefined;
        const { part, read } = taken;
        if (read?.every(({ name }) => this.names.has(name)) === true) calls.push(...read);
        else text += this.#asText(this.#layout + part);
        this.#calls += read?.length ?? 0;
      }
      const mark = this.#findMark();
      if (mark === undefined) {
        text += this.#asText(this.#takeCertain(ended));
        break;
      }
      const before = this.#held.slice(0, mark);
      this.#held = this.#held.slice(mark);
      const isLayout = this.#onlyCalls && before.trim() === '';
      this.#layout = isLayout ? before : '';
      if (!isLayout) text += this.#asText(before);
      this.#end = new ToolCallEnd(this.format.end);
    }
    return { text, calls };
  }

  #asText(text: string): string {
    if (text.trim() !== '') this.#onlyCalls = false;
    return text;
  }

  /** The whole of what may be a call, once it is there, with the calls that it is. */
  #takePart(end: ToolCallEnd, ended: boolean): { part: string; read: readonly ToolCall[] | undefined } | undefined {
    const lengths = end.find(this.#held, ended);
    if (lengths === undefined) return undefined;
    let part = '';
    let read: readonly ToolCall[] | undefined;
    for (const length of lengths) {
      part = this.#held.slice(0, length);
      read = this.format.read(part);
      if (read !== undefined) break;
    }
    this.#held = this.#held.slice(part.length);
    return { part, read };
  }

  /** Where in what is held a call may begin. */
  #findMark(): number | undefined {
    const { marks } = this.format;
    // A format whose calls need no mark: the text is one if it begins like JSON.
    const bare = this.#onlyCalls && this.#calls === 0 && marks.includes('') ? this.#held.search(/\S/) : -1;
    if (bare >= 0 && this.#held[bare] === '{') return bare;
    const places = marks.filter((mark) => mark !== '').map((mark) => this.#held.indexOf(mark));
    const found = places.filter((at) => at >= 0);
    return found.length === 0 ? undefined : Math.min(...found);
  }

  /** What is held and belongs to no call, whatever comes next. */
  #takeCertain(ended: boolean): string {
    const held = this.#held;
    const kept = ended ? 0 : Math.max(...this.format.marks.map((mark) => overlap(held, mark)));
    const certain = held.slice(0, held.length - kept);
    const isLayout = this.#onlyCalls && certain.trim() === '';
    if (isLayout && !ended) return '';
    this.#held = held.slice(certain.length);
    return isLayout && this.#calls > 0 ? '' : certain;
  }
}

/** Length of the longest end of `text` that `mark` begins with. */
function overlap(text: string, mark: string): number {
  for (let length = Math.min(text.length, mark.length - 1); length > 0; length--) {
    if (text.endsWith(mark.slice(0, length))) return length;
  }
  return 0;
}
