/** Follows grammars one token at a time, as a model does that is made to. */
import { expect } from 'vitest';
import type { GrammarCursor } from '../../src/text/grammar.js';
import { tokensOf } from './byte-tokenizer.js';

/** The tokens that may come next. Throws why that is not known. */
export function allowed(cursor: GrammarCursor): number[] {
  if (cursor.allowed === undefined) throw cursor.failure ?? new Error('not ready');
  const mask = cursor.allowed;
  return [...Array(mask.length * 32).keys()].filter((token) => ((mask[token >> 5]! >> (token & 31)) & 1) === 1);
}

/** Follows a text, which must be allowed all the way; returns what may come after it. */
export async function follow(cursor: GrammarCursor, text: string): Promise<number[]> {
  await cursor.ready;
  for (const token of tokensOf(text)) {
    expect(allowed(cursor)).toContain(token);
    cursor.accept(token);
    await cursor.ready;
  }
  return allowed(cursor);
}

/** How much of a text is allowed; the whole of it where `end` may come then, too. */
export async function allowedPart(cursor: GrammarCursor, text: string, end: number): Promise<string> {
  await cursor.ready;
  const tokens = [...tokensOf(text), end];
  for (const [length, token] of tokens.entries()) {
    if (!allowed(cursor).includes(token)) return `${Buffer.from(text).subarray(0, length).toString()}|`;
    if (token === end) break;
    cursor.accept(token);
    await cursor.ready;
  }
  return text;
}
