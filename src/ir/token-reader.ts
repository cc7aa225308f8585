/** Reads tokens one after the other, with what a recursive descent parser asks for again and again. */
import { defined } from '../util/assert.js';
import type { Name } from './program.js';
import { ParseError, tokenize, type Token } from './tokens.js';

export class TokenReader {
  private readonly tokens: readonly Token[];
  private at = 0;

  constructor(text: string) {
    this.tokens = tokenize(text);
  }

  /** The token `ahead` places further, without taking it. */
  peek(ahead = 0): Token {
    return this.tokens[this.at + ahead] ?? defined(this.tokens.at(-1), 'end token');
  }

  /** Is the next token this word or mark? */
  is(text: string): boolean {
    const { kind, text: next } = this.peek();
    return next === text && (kind === 'name' || kind === 'mark');
  }

  /** Takes the next token if it is this word or mark. */
  accept(text: string): boolean {
    if (!this.is(text)) return false;
    this.at++;
    return true;
  }

  expect(text: string): void {
    if (!this.accept(text)) throw this.error(`expected ${text}`);
  }

  name(what = 'a name'): Name {
    return this.take('name', what);
  }

  number(): number {
    const token = this.peek();
    const value = Number(this.take('number', 'a number'));
    if (Number.isFinite(value)) return value;
    throw new ParseError(token.line, token.column, `${token.text} is not a number that fits`);
  }

  /** A whole number from 0 on. */
  count(): number {
    const token = this.peek();
    const value = this.number();
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new ParseError(token.line, token.column, `expected a whole number, found ${token.text}`);
  }

  string(): string {
    const token = this.peek();
    const text = this.take('string', 'a string');
    try {
      return JSON.parse(text) as string;
    } catch {
      throw new ParseError(token.line, token.column, 'not a JSON string');
    }
  }

  /** One of these words. */
  oneOf<T extends string>(words: readonly T[]): T {
    const { kind, text } = this.peek();
    const word = words.find((candidate) => kind === 'name' && candidate === text);
    if (word === undefined) throw this.error(`expected ${words.join(', ')}`);
    this.at++;
    return word;
  }

  /** Items up to `end`, each followed by a comma except perhaps the last one. Takes `end`. */
  list<T>(end: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.accept(end)) {
      items.push(item());
      if (this.accept(',')) continue;
      this.expect(end);
      break;
    }
    return items;
  }

  error(detail: string): ParseError {
    const { line, column, kind, text } = this.peek();
    return new ParseError(line, column, `${detail}, found ${kind === 'end' ? 'the end' : text.slice(0, 60)}`);
  }

  private take(kind: Token['kind'], what: string): string {
    const token = this.peek();
    if (token.kind !== kind) throw this.error(`expected ${what}`);
    this.at++;
    return token.text;
  }
}
