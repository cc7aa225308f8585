/** What a schema lets an answer be, byte by byte. */
import type { GrammarSource } from '../../src/text/grammar-thread.js';
import { Grammars } from '../../src/text/grammar.js';
import { byteTokenizer } from './byte-tokenizer.js';
import { allowedPart } from './grammar.js';

const stop = 2;

/** Those of the texts that the schema, or the structure, allows from beginning to end. */
export async function allowedOf(schema: object, texts: readonly string[], kind = 'schema'): Promise<string[]> {
  const vocabulary = { tokenizer: byteTokenizer, vocab: 266, stopTokens: [stop] };
  // What it takes is no matter here: the machine may be busy.
  const grammars = new Grammars(vocabulary, { compileMs: 60_000, tokenMs: 60_000, setUpMs: 60_000 });
  try {
    const grammar = await grammars.compile({ kind, [kind]: JSON.stringify(schema) } as GrammarSource);
    const kept: string[] = [];
    for (const text of texts) {
      const cursor = grammar.open();
      if ((await allowedPart(cursor, text, stop)) === text) kept.push(text);
      cursor.close();
    }
    return kept;
  } finally {
    await grammars.close();
  }
}
