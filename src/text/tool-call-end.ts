/**
 * Where a call ends: at the first end mark that is in no JSON string.
 *
 *   <tool_call>{"x": "</tool_call>"}</tool_call>
 *                     in a string   the end
 */

/** End marks in strings that are passed over for one call; every character is looked at as often, at most. */
const mostPassed = 8;
const quote = 0x22;
const backslash = 0x5c;

/** Looks for the end of one call in a text that grows, at every character once. */
export class ToolCallEnd {
  #at = 0;
  #inString = false;
  /** A string that is none: there is no JSON, and nothing to be in. */
  #isBroken = false;
  #passed = 0;
  /** Behind the first end mark, where that is in a string. */
  #first: number | undefined;

  /** Without a mark the end of the text is that of the call. */
  constructor(private readonly mark: string | undefined) {}

  /** How long the call may be, what is best first; undefined while that is not known. `ended` says that no more comes. */
  find(text: string, ended: boolean): readonly number[] | undefined {
    const { mark } = this;
    if (mark === undefined) return ended ? [text.length] : undefined;
    while (this.#at < text.length) {
      const code = text.charCodeAt(this.#at);
      const next = text[this.#at + 1];
      if (code === backslash && next === undefined && !ended) return undefined;
      if (code === mark.charCodeAt(0)) {
        const isMark = text.startsWith(mark, this.#at);
        if (!isMark && !ended && mark.startsWith(text.slice(this.#at, this.#at + mark.length))) return undefined;
        const behind = this.#at + mark.length;
        if (isMark && !this.#inString) return this.#with(behind);
        if (isMark) this.#first ??= behind;
        if (isMark && ++this.#passed > mostPassed) return this.#with();
      }
      if (this.#inString && code < 0x20) {
        if (this.#first !== undefined) return this.#with();
        this.#isBroken = true;
      }
      if (code === quote) this.#inString = !this.#inString;
      if (this.#isBroken) this.#inString = false;
      this.#at += this.#inString && code === backslash && next !== mark[0] ? 2 : 1;
    }
    return ended ? this.#with(text.length) : undefined;
  }

  #with(...lengths: readonly number[]): readonly number[] {
    return this.#first === undefined ? lengths : [...lengths, this.#first];
  }
}
