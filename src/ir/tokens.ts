/** The words of the text form, with their places: names, numbers, strings, punctuation. `//` starts a comment. */

export interface Token {
  readonly kind: 'name' | 'number' | 'string' | 'mark' | 'end';
  /** As written; a string with its quotes. */
  readonly text: string;
  readonly line: number;
  readonly column: number;
}

/** The text is not the text form of a program. Lines and columns count from 1. */
export class ParseError extends Error {
  override readonly name = 'ParseError';
  constructor(
    readonly line: number,
    readonly column: number,
    detail: string,
  ) {
    super(`line ${line}, column ${column}: ${detail}`);
  }
}

const space = /(?:[ \t\r]|\/\/[^\n]*)*/y;
const patterns = [
  { kind: 'name', pattern: /[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*/y },
  { kind: 'number', pattern: /-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y },
  { kind: 'string', pattern: /"(?:[^"\\\n]|\\[^\n])*"/y },
  { kind: 'mark', pattern: /->|<-|[(){}[\],:;=@]/y },
] as const;

/** All tokens, then one of kind `end`. @throws ParseError on a character that starts none. */
export function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  let line = 1;
  let lineStart = 0;
  let at = 0;
  const match = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0] ?? '';
  };
  for (;;) {
    at += match(space).length;
    const place = { line, column: at - lineStart + 1 };
    if (at >= text.length) return [...tokens, { kind: 'end', text: '', ...place }];
    if (text[at] === '\n') {
      at++;
      line++;
      lineStart = at;
      continue;
    }
    const found = patterns
      .map(({ kind, pattern }) => ({ kind, text: match(pattern) }))
      .find((token) => token.text !== '');
    if (found === undefined) throw new ParseError(line, place.column, `unexpected ${JSON.stringify(text[at])}`);
    tokens.push({ ...found, ...place });
    at += found.text.length;
  }
}
