/**
 * What a schema lets an answer be, byte by byte. One thread follows one grammar after another, as those of the product never
 * do: to start it takes a hundred times as long as a small schema.
 */
import type { GrammarSource } from '../../src/text/grammar-thread.js';
import { followableText, GrammarThread, namesOf, ThreadCursor } from '../../src/text/grammar.js';
import { byteTokenizer } from './byte-tokenizer.js';
import { allowedPart } from './grammar.js';

const stop = 2;
const vocabulary = { tokenizer: byteTokenizer, vocab: 266, stopTokens: [stop] };
// What it takes is no matter here: the machine may be busy, and memory of earlier grammars is not given back.
const [timeMs, memoryMib] = [60_000, 2048];

let started: Promise<GrammarThread> | undefined;
/** The thread has one grammar at a time. */
let last: Promise<unknown> = Promise.resolve();

/** Those of the texts that the schema, or the structure, allows from beginning to end. */
export function allowedOf(schema: object, texts: readonly string[], kind = 'schema'): Promise<string[]> {
  const kept = last.then(() => allowedBy(schema, texts, kind));
  last = kept.catch(() => undefined);
  return kept;
}

async function allowedBy(schema: object, texts: readonly string[], kind: string): Promise<string[]> {
  const json = JSON.stringify(schema);
  const source = followableText({ kind, [kind]: json } as GrammarSource, json);
  started ??= start();
  const thread = await started;
  try {
    await thread.ask({ kind: 'compile', source }, timeMs);
    const kept: string[] = [];
    for (const text of texts) {
      const cursor = new ThreadCursor(thread, timeMs, () => undefined);
      if ((await allowedPart(cursor, text, stop)) === text) kept.push(text);
      cursor.close();
    }
    return kept;
  } catch (error) {
    // It may be of no use any more.
    started = undefined;
    await thread.end(error as Error);
    throw error;
  }
}

async function start(): Promise<GrammarThread> {
  const { vocab, stopTokens } = vocabulary;
  const thread = new GrammarThread({ vocabulary: namesOf(vocabulary), vocab, stopTokens, memoryMib });
  await thread.ask({ kind: 'setUp' }, timeMs);
  return thread;
}
