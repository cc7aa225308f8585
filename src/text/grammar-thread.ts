/**
 * The thread in which one grammar is compiled and followed, started by grammar.ts: XGrammar, which is C++ compiled to
 * WebAssembly. A grammar comes from a request, so that the thread may be ended at any time, and its memory is bounded.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { CompiledGrammar, GrammarMatcher, TokenizerInfo } from '@mlc-ai/web-xgrammar';
import { defined } from '../util/assert.js';
import { messageOf, UsageError } from '../util/errors.js';
import { finished, textRule } from './grammar-text.js';
import type { FollowableSchema } from './json-schema-rewriter.js';
import { textGrammar } from './json-text-rules.js';

/** What the thread is started with. */
export interface GrammarSetup {
  /** Every token in the byte-level alphabet; empty for one that is no text. */
  readonly vocabulary: readonly string[];
  /** Tokens of a mask. */
  readonly vocab: number;
  /** Tokens that may come when the text is complete. */
  readonly stopTokens: readonly number[];
  readonly memoryMib: number;
}

/** A JSON schema, as an object or as JSON text; or a sequence of texts and schemas. */
export type GrammarSource = { readonly kind: 'schema'; readonly schema: object | string } | GrammarStructure;

export interface GrammarStructure {
  readonly kind: 'structure';
  /** JSON, as XGrammar's structural tags are. */
  readonly structure: string;
  /** Special tokens that are text all the same, such as the mark of a tool call. */
  readonly textTokens?: readonly number[];
}

/** The same, as JSON text; schemas are a `FollowableSchema` each. */
export type GrammarText = { readonly kind: 'schema'; readonly schema: string } | GrammarStructure;

export type GrammarJob =
  | { readonly kind: 'setUp' }
  | { readonly kind: 'compile'; readonly source: GrammarText }
  | { readonly kind: 'open'; readonly cursor: number }
  | { readonly kind: 'accept'; readonly cursor: number; readonly token: number }
  | { readonly kind: 'close'; readonly cursor: number };

export interface GrammarReply {
  readonly id: number;
  /** A bit per token: what may come next. None where the text is complete and there is no token to say so. */
  readonly allowed?: Int32Array;
  /** Why it failed. */
  readonly error?: string;
}

type Library = typeof import('@mlc-ai/web-xgrammar');

const pageBytes = 65_536;
/** White space between two parts of JSON, where it may be. */
const maxWhitespace = 20;

/** Loads the library. It is a script for browsers: it wants to know where it is, and leaves itself in a global. */
async function loadLibrary(): Promise<Library> {
  const globals = globalThis as { location?: { href: string }; xgrammar?: Library };
  globals.location = { href: import.meta.resolve('@mlc-ai/web-xgrammar') };
  await import('@mlc-ai/web-xgrammar');
  return defined(globals.xgrammar, 'the grammar library');
}

interface Memory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

function limitMemory(mib: number): void {
  const { WebAssembly } = globalThis as unknown as { WebAssembly: { Memory: { prototype: Memory } } };
  const { prototype } = WebAssembly.Memory;
  const grow = Object.getOwnPropertyDescriptor(prototype, 'grow')?.value as (this: Memory, pages: number) => number;
  prototype.grow = function (pages) {
    if (this.buffer.byteLength + pages * pageBytes > mib * 2 ** 20) throw new RangeError('the grammar is too large');
    return grow.call(this, pages);
  };
}

class Engine {
  #library: Library | undefined;
  #tokenizer: TokenizerInfo | undefined;
  #grammar: CompiledGrammar | undefined;
  readonly #cursors = new Map<number, GrammarMatcher>();

  constructor(private readonly setup: GrammarSetup) {}

  async answer(job: GrammarJob): Promise<Int32Array | undefined> {
    switch (job.kind) {
      case 'setUp':
        await this.#setUp();
        return undefined;
      case 'compile':
        await this.#compile(job.source);
        return undefined;
      case 'open': {
        const { GrammarMatcher } = defined(this.#library, 'library');
        const stops = [...this.setup.stopTokens];
        const grammar = defined(this.#grammar, 'grammar');
        const matcher = await GrammarMatcher.createGrammarMatcher(grammar, undefined, stops.length === 0);
        this.#cursors.set(job.cursor, matcher);
        return this.#allowed(matcher);
      }
      case 'accept': {
        const matcher = defined(this.#cursors.get(job.cursor), 'cursor');
        if (!matcher.acceptToken(job.token)) throw new Error(`token ${job.token} does not fit`);
        return this.#allowed(matcher);
      }
      case 'close':
        this.#cursors.get(job.cursor)?.dispose();
        this.#cursors.delete(job.cursor);
        return undefined;
    }
  }

  async #setUp(): Promise<void> {
    this.#library = await loadLibrary();
    const { vocabulary, vocab, stopTokens } = this.setup;
    const { TokenizerInfo: Info } = this.#library;
    this.#tokenizer = await Info.createTokenizerInfo([...vocabulary], 'byte_level', false, vocab, [...stopTokens]);
  }

  async #compile(source: GrammarText): Promise<void> {
    const { GrammarCompiler } = defined(this.#library, 'library');
    const compiler = await GrammarCompiler.createGrammarCompiler(defined(this.#tokenizer, 'tokenizer'), false);
    this.#grammar =
      source.kind === 'schema'
        ? await compiler.compileGrammar(await this.#grammarOf(JSON.parse(source.schema) as FollowableSchema))
        : await compiler.compileStructuralTag(JSON.stringify(await this.#bounded(JSON.parse(source.structure))));
  }

  /** The structure with grammars in the place of its schemas, since there white space would know no bounds. */
  async #bounded(part: unknown): Promise<unknown> {
    if (typeof part !== 'object' || part === null) return part;
    if (Array.isArray(part)) return Promise.all(part.map((one) => this.#bounded(one)));
    if ('type' in part && part.type === 'json_schema' && 'json_schema' in part) {
      return { type: 'grammar', grammar: await this.#grammarOf(part.json_schema as FollowableSchema) };
    }
    const entries = Object.entries(part).map(async ([key, value]) => [key, await this.#bounded(value)] as const);
    return Object.fromEntries(await Promise.all(entries));
  }

  async #grammarOf({ schema, texts }: FollowableSchema): Promise<string> {
    const { Grammar } = defined(this.#library, 'library');
    const rules = texts.map((text, i) => textGrammar(text, textRule(i)));
    const json = JSON.stringify(schema);
    const grammar = await Grammar.fromJSONSchema(json, true, undefined, undefined, true, maxWhitespace);
    return [finished(grammar.toString()), ...rules].join('\n');
  }

  async #allowed(matcher: GrammarMatcher): Promise<Int32Array> {
    const { vocab } = this.setup;
    if (matcher.isTerminated()) return new Int32Array(Math.ceil(vocab / 32));
    const allowed = await matcher.getNextTokenBitmask();
    // Bits of no token, which the library leaves set.
    if (vocab % 32 !== 0) allowed[allowed.length - 1]! &= (1 << (vocab % 32)) - 1;
    return allowed;
  }
}

const port = defined(parentPort ?? undefined, 'the port of a worker thread');
const setup = workerData as GrammarSetup;
limitMemory(setup.memoryMib);
// The library tells there why it gives up; a schema is nobody's business but its author's.
let lastWords = '';
console.error = (...words: unknown[]) => void (lastWords ||= words.join(' '));
console.log = () => undefined;
const engine = new Engine(setup);
let queue: Promise<void> = Promise.resolve();
port.on('message', ({ id, job }: { id: number; job: GrammarJob }) => {
  queue = queue.then(async () => {
    lastWords = '';
    try {
      const allowed = await engine.answer(job);
      const reply: GrammarReply = allowed === undefined ? { id } : { id, allowed };
      port.postMessage(reply, allowed === undefined ? [] : [allowed.buffer as ArrayBuffer]);
    } catch (error) {
      // "[FATAL] /path/to/file.cc:885: Check failed: (...) is false: Type should be a string"
      const reason = lastWords.replace(/^\[\w+\]\s*(\S+:\d+:\s*)?(Check failed:.*? is false:\s*)?/, '');
      // C++ exceptions arrive as numbers.
      const message = typeof error === 'number' ? 'the library does not take it' : messageOf(error);
      const why = `the schema cannot be followed: ${(reason === '' ? message : reason).slice(0, 300)}`;
      const reply: GrammarReply = { id, error: error instanceof UsageError ? message : why };
      port.postMessage(reply);
    }
  });
});
