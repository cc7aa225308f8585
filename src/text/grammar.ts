/**
 * Grammars that a text must follow, token by token: a JSON schema, or a structure of texts and schemas. Every grammar has a
 * worker thread of its own, with limits of time and memory: one that is hostile takes nobody with it, and what others
 * wait for is not held up. Threads are kept for the next request with the same grammar.
 */
import { Worker } from 'node:worker_threads';
import { AbortedError, messageOf, OverloadedError, UsageError } from '../util/errors.js';
import type { GrammarJob, GrammarReply, GrammarSetup, GrammarSource, GrammarText } from './grammar-thread.js';
import { followableSchema } from './json-schema.js';
import { byteLevelName } from './token-bytes.js';
import type { Tokenizer } from './tokenizer.js';

export interface GrammarLimits {
  /** Milliseconds to compile one, to say what may come next, and to read the vocabulary. */
  readonly compileMs: number;
  readonly tokenMs: number;
  readonly setUpMs: number;
  /** Of one thread. */
  readonly memoryMib: number;
  /** UTF-16 units of a source. */
  readonly sourceLength: number;
  /** Threads, which are grammars in use and kept. */
  readonly grammars: number;
}

const grammarLimits: GrammarLimits = {
  compileMs: 3000,
  tokenMs: 1000,
  setUpMs: 20_000,
  memoryMib: 384,
  sourceLength: 64 * 1024,
  grammars: 8,
};

export interface GrammarVocabulary {
  readonly tokenizer: Tokenizer;
  /** Rows of the embedding: the masks have a bit for each. */
  readonly vocab: number;
  /** Tokens that end a text; allowed only where it is complete. */
  readonly stopTokens: readonly number[];
}

/** A compiled grammar; `release` it when no more texts will begin. */
export interface Grammar {
  /** Follows one text from its beginning. */
  open(): GrammarCursor;
  release(): void;
}

/** A place in a text that follows a grammar. */
export interface GrammarCursor {
  /** A bit per token, the lowest of a word first: what may come next. Undefined until it is known; no bit at the end. */
  readonly allowed: Int32Array | undefined;
  /** What went wrong. */
  readonly failure: Error | undefined;
  /** Settles when `allowed` or `failure` is there; never rejects. */
  readonly ready: Promise<void>;
  /** The next token; it is one of the allowed ones and no stop token. */
  accept(token: number): void;
  close(): void;
}

interface Entry {
  readonly thread: GrammarThread;
  readonly compiled: Promise<void>;
  users: number;
}

/** The grammars of one model. */
export class Grammars {
  readonly #limits: GrammarLimits;
  /** By source; those used longest ago first. */
  readonly #entries = new Map<string, Entry>();
  readonly #vocabulary: GrammarVocabulary;
  #names: readonly string[] | undefined;

  constructor(vocabulary: GrammarVocabulary, limits: Partial<GrammarLimits> = {}) {
    this.#vocabulary = vocabulary;
    this.#limits = { ...grammarLimits, ...limits };
  }

  /**
   * Throws UsageError for a grammar that is malformed, not supported or too costly, OverloadedError where too many are in
   * use.
   */
  async compile(source: GrammarSource): Promise<Grammar> {
    const text = textOf(source);
    if (text.length > this.#limits.sourceLength) {
      throw new UsageError(`the schema has ${text.length} characters, at most ${this.#limits.sourceLength} may be`);
    }
    const key = `${source.kind} ${text}`;
    const entry = this.#entries.get(key) ?? this.#start(followableText(source, text));
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    entry.users++;
    let released = false;
    const release = (): void => {
      if (!released) entry.users--;
      released = true;
    };
    try {
      await entry.compiled;
    } catch (error) {
      release();
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
      throw error;
    }
    return {
      open: () => new ThreadCursor(entry.thread, this.#limits.tokenMs, () => this.#drop(key, entry)),
      release,
    };
  }

  async close(): Promise<void> {
    const threads = [...this.#entries.values()].map(({ thread }) => thread);
    this.#entries.clear();
    await Promise.all(threads.map((thread) => thread.end(new AbortedError('the model is closed'))));
  }

  #start(source: GrammarText): Entry {
    if (this.#entries.size >= this.#limits.grammars) this.#evict();
    const { vocab, stopTokens } = this.#vocabulary;
    const { memoryMib, setUpMs, compileMs } = this.#limits;
    const vocabulary = this.#namesFor(source);
    const thread = new GrammarThread({ vocabulary, vocab, stopTokens, memoryMib });
    const compile = async (): Promise<void> => {
      try {
        await thread.ask({ kind: 'setUp' }, setUpMs);
        await thread.ask({ kind: 'compile', source }, compileMs);
      } catch (error) {
        void thread.end(error as Error);
        throw error;
      }
    };
    return { thread, compiled: compile(), users: 0 };
  }

  #namesFor(source: GrammarText): readonly string[] {
    this.#names ??= namesOf(this.#vocabulary);
    if (source.kind === 'schema' || source.textTokens === undefined) return this.#names;
    const { tokenizer, vocab } = this.#vocabulary;
    const names = [...this.#names];
    for (const id of source.textTokens) if (id < vocab) names[id] = byteLevelName(tokenizer.bytesOf(id));
    return names;
  }

  #evict(): void {
    for (const [key, entry] of this.#entries) {
      if (entry.users > 0) continue;
      this.#drop(key, entry);
      return;
    }
    throw new OverloadedError(`${this.#entries.size} different grammars are in use`, { hint: 'try again later' });
  }

  #drop(key: string, entry: Entry): void {
    if (this.#entries.get(key) === entry) this.#entries.delete(key);
    void entry.thread.end(new AbortedError('the grammar is no longer in use'));
  }
}

/** The JSON of a source, which callers without types may have got wrong. */
function textOf(source: unknown): string {
  const { kind, schema, structure } = (source ?? {}) as { kind?: unknown; schema?: unknown; structure?: unknown };
  if (kind === 'structure' && typeof structure === 'string') return structure;
  if (kind === 'structure') throw new UsageError('the grammar has no structure', { hint: 'give it as JSON text' });
  if (kind !== 'schema') {
    const given = typeof kind === 'string' ? `the kind ${JSON.stringify(kind.slice(0, 100))}` : 'no kind';
    throw new UsageError(`the grammar has ${given}`, { hint: "give { kind: 'schema', schema }" });
  }
  if (typeof schema === 'string') return schema;
  if (typeof schema !== 'object' || schema === null) {
    throw new UsageError('the grammar has no schema', { hint: 'give it as an object or as JSON text' });
  }
  try {
    return JSON.stringify(schema);
  } catch (error) {
    throw new UsageError(`the schema cannot be written as JSON: ${messageOf(error)}`);
  }
}

/** The same with schemas in words that are followed exactly. */
export function followableText(source: GrammarSource, text: string): GrammarText {
  const json = parse(text, source.kind);
  if (source.kind === 'schema') return { kind: 'schema', schema: JSON.stringify(followableSchema(json)) };
  const follow = (part: unknown): unknown => {
    if (typeof part !== 'object' || part === null) return part;
    if (Array.isArray(part)) return part.map(follow);
    return Object.fromEntries(
      Object.entries(part).map(([key, value]) => [
        key,
        key === 'json_schema' ? followableSchema(value) : follow(value),
      ]),
    );
  };
  return { ...source, structure: JSON.stringify(follow(json)) };
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(`the ${what} is no JSON: ${messageOf(error)}`);
  }
}

export function namesOf({ tokenizer, vocab, stopTokens }: GrammarVocabulary): string[] {
  return Array.from({ length: vocab }, (_, id) =>
    !tokenizer.isSpecial(id) && !stopTokens.includes(id) ? byteLevelName(tokenizer.bytesOf(id)) : '',
  );
}

/** At the same depth below src/ and dist/. */
const threadFile = new URL('../../dist/text/grammar-thread.js', import.meta.url);

/** Asks one thing at a time, or several that are answered in order. */
export class GrammarThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (reply: GrammarReply | Error) => void>();
  #nextId = 0;
  #ended: Error | undefined;

  constructor(setup: GrammarSetup) {
    const resourceLimits = { maxOldGenerationSizeMb: 256, stackSizeMb: 4 };
    this.#worker = new Worker(threadFile, { workerData: setup, resourceLimits, stdout: true, stderr: true });
    this.#worker.unref();
    this.#worker.on('message', (reply: GrammarReply) => this.#waiting.get(reply.id)?.(reply));
    this.#worker.on('error', () => void this.end(tooCostly('memory')));
    this.#worker.on('exit', () => void this.end(new Error('the thread of a grammar ended')));
  }

  /** Rejects with UsageError where the thread says so, or takes too long; then it has ended. */
  async ask(job: GrammarJob, timeMs: number): Promise<Int32Array | undefined> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#nextId++;
    const timer = setTimeout(() => void this.end(tooCostly('time')), timeMs);
    this.#worker.ref();
    try {
      const answer = await new Promise<GrammarReply | Error>((resolve) => {
        this.#waiting.set(id, resolve);
        this.#worker.postMessage({ id, job });
      });
      if (answer instanceof Error) throw answer;
      if (answer.error !== undefined) throw new UsageError(answer.error);
      return answer.allowed;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
      if (this.#waiting.size === 0) this.#worker.unref();
    }
  }

  /** Tells without waiting for an answer. */
  tell(job: GrammarJob): void {
    if (this.#ended === undefined) this.#worker.postMessage({ id: this.#nextId++, job });
  }

  async end(reason: Error): Promise<void> {
    this.#ended ??= reason;
    for (const give of this.#waiting.values()) give(this.#ended);
    await this.#worker.terminate();
  }

  newCursor(): number {
    return this.#nextId++;
  }
}

function tooCostly(what: string): UsageError {
  return new UsageError(`the schema takes too much ${what} to follow`, { hint: 'simplify it' });
}

export class ThreadCursor implements GrammarCursor {
  allowed: Int32Array | undefined;
  failure: Error | undefined;
  ready: Promise<void>;
  readonly #cursor: number;

  constructor(
    private readonly thread: GrammarThread,
    private readonly timeMs: number,
    private readonly onFailure: () => void,
  ) {
    this.#cursor = thread.newCursor();
    this.ready = this.#ask({ kind: 'open', cursor: this.#cursor });
  }

  accept(token: number): void {
    this.allowed = undefined;
    this.ready = this.#ask({ kind: 'accept', cursor: this.#cursor, token });
  }

  close(): void {
    this.thread.tell({ kind: 'close', cursor: this.#cursor });
  }

  async #ask(job: GrammarJob): Promise<void> {
    try {
      this.allowed = await this.thread.ask(job, this.timeMs);
    } catch (error) {
      this.failure = error as Error;
      this.onFailure();
    }
  }
}
