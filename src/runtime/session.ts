/**
 * One conversation: a slot of the model's KV cache, and what is in it. A prompt that begins like what was run before
 * computes only what is new, so that every turn of a chat costs its own length.
 */
import { UsageError } from '../util/errors.js';
import type { ChatMessage } from '../text/chat-template.js';
import type { Grammar } from '../text/grammar.js';
import { isObject } from './check-options.js';
import { checkPrompt, requireMessages } from './check-prompt.js';
import type { Engine } from './engine.js';
import { tokenLogprob, type LogprobOptions, type TokenLogprob } from './logprobs.js';
import { checkGenerateOptions, type GenerateOptions } from './generate-options.js';
import { Generation, type GenerationResult, type Piece } from './generation.js';
import { checkBiasedTokens, resolveSampling, type Sampling } from './sampling.js';
import type { Request } from './sequence.js';
import { TextStream } from './text-stream.js';

export type { GenerateOptions };

/** A text to continue, token ids to continue, or messages to answer with the model's chat template. */
export type Prompt = string | readonly number[] | { readonly messages: readonly ChatMessage[] };

interface Job {
  readonly prompt: Prompt;
  readonly sampling: Sampling;
  readonly maxTokens: number;
  readonly stopTokens: readonly number[];
  readonly text: TextStream;
  readonly logprobs: LogprobOptions | undefined;
  readonly grammar: Grammar | undefined;
}

export class Session {
  readonly #engine: Engine;
  readonly #slot: number;
  readonly #release: () => void;
  /** Tokens whose keys and values the slot holds, from position 0. */
  #cached: readonly number[] = [];
  #current: Generation | undefined;
  #closed = false;

  /** `release` gives the slot back. Made by `Model.session()`. */
  constructor(engine: Engine, slot: number, release: () => void) {
    this.#engine = engine;
    this.#slot = slot;
    this.#release = release;
  }

  /**
   * Starts making text; one at a time per session. Throws UsageError for options of the wrong type or outside their range.
   * The generation fails with ContextOverflowError where the prompt is longer than the context.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    if (this.#closed) throw new UsageError('this session is closed');
    if (this.#engine.scheduler.ended) throw new UsageError('the model of this session is closed');
    requirePrompt(prompt);
    if (this.#current !== undefined) {
      throw new UsageError('this session is already making text', { hint: 'wait for it or use a second session' });
    }
    checkGenerateOptions(options);
    const { maxTokens = Infinity, stop = [], ignoreEos = false, signal } = options;
    const { grammar } = options;
    if (grammar !== undefined && ignoreEos) throw new UsageError('ignoreEos does not go with a grammar');
    const { atStart = typeof prompt === 'object' && 'messages' in prompt } = options;
    const sampling = resolveSampling(options);
    checkBiasedTokens(sampling.bias, this.#engine.vocab);
    const job: Job = {
      prompt,
      sampling,
      maxTokens,
      stopTokens: ignoreEos ? [] : this.#engine.stopTokens,
      text: new TextStream(this.#engine.tokenizer, { stop, atStart, textTokens: options.textTokens ?? [] }),
      logprobs: options.logprobs,
      grammar,
    };
    const generation = new Generation(async (emit, stopSignal) => {
      try {
        return await this.#run(job, emit, stopSignal);
      } finally {
        this.#current = undefined;
      }
    }, signal);
    this.#current = generation;
    return generation;
  }

  /** How many of these tokens, from the first on, need not be computed again. */
  sharedPrefix(tokens: readonly number[]): number {
    return commonPrefix(this.#cached, tokens);
  }

  /** Stops what is being made and gives the slot back. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#current?.abort();
    await this.#current?.result.catch(() => undefined);
    this.#release();
  }

  async #run(job: Job, emit: (piece: Piece) => void, signal: AbortSignal): Promise<GenerationResult> {
    const startMs = performance.now();
    const promptTokens = await this.#encode(job.prompt);
    const room = this.#engine.limits.context - promptTokens.length + 1;
    // The last prompt row is computed in any case: the first token comes from it.
    const held = job.logprobs?.prompt === true ? 0 : commonPrefix(this.#cached, promptTokens);
    const reused = Math.min(held, promptTokens.length - 1);
    const encodeMs = performance.now() - startMs;
    const answer = new Answer(job, emit);
    const fed = [...promptTokens];
    this.#cached = [];
    const constraint = job.grammar?.open();
    const outcome = await this.#engine.scheduler
      .submit({
        slot: this.#slot,
        prompt: promptTokens.slice(reused),
        position: reused,
        sampling: job.sampling,
        maxTokens: Math.min(job.maxTokens, room),
        stopTokens: job.stopTokens,
        signal,
        ...answer.scores(promptTokens.length),
        ...(constraint === undefined ? {} : { constraint }),
        onTokens: (made) => {
          fed.push(...made);
          return answer.push(made);
        },
      })
      .finally(() => constraint?.close());
    this.#cached = fed.slice(0, outcome.filled);
    answer.end();
    return {
      text: answer.text,
      promptTokens,
      tokens: answer.tokens,
      ...answer.logprobs(),
      finishReason: outcome.reason,
      contextFull: outcome.reason === 'length' && room < job.maxTokens,
      seed: job.sampling.seed,
      cachedTokens: reused,
      timings: { prefillMs: encodeMs + outcome.prefillMs, decodeMs: outcome.decodeMs },
      counters: { prefill: outcome.prefill, decode: outcome.decode },
    };
  }

  async #encode(prompt: Prompt): Promise<readonly number[]> {
    const { tokenizer, chat, vocab, limits, maxContext } = this.#engine;
    const tokens =
      typeof prompt === 'string'
        ? tokenizer.encode(prompt)
        : 'messages' in prompt
          ? // The template wrote the special tokens itself.
            tokenizer.encode(await chat.render(prompt.messages), { addSpecial: false })
          : [...prompt];
    checkPrompt(tokens, { context: limits.context, maxContext, vocab });
    return tokens;
  }
}

/** For callers whose types were not checked. */
function requirePrompt(prompt: unknown): void {
  if (typeof prompt === 'string' || Array.isArray(prompt)) return;
  if (!isObject(prompt) || !Array.isArray(prompt['messages'])) {
    throw new UsageError('the prompt must be a text, a list of token ids, or { messages: [...] }');
  }
  requireMessages(prompt['messages']);
}

/** Collects tokens, their likelihoods and text of one generation and hands the pieces on. */
class Answer {
  readonly tokens: number[] = [];
  text = '';
  #stopped = false;
  readonly #logprobs: TokenLogprob[] = [];
  readonly #promptLogprobs: TokenLogprob[] = [];

  constructor(
    private readonly job: Job,
    private readonly emit: (piece: Piece) => void,
  ) {}

  /** What to ask the scheduler for. */
  scores(promptLength: number): Pick<Request, 'scores'> {
    const { logprobs } = this.job;
    if (logprobs === undefined) return {};
    const onLogits = (token: number, position: number, logits: Float32Array): void => {
      const list = position < promptLength ? this.#promptLogprobs : this.#logprobs;
      list.push(tokenLogprob(logits, token, logprobs.top));
    };
    return { scores: { prompt: logprobs.prompt ?? false, onLogits } };
  }

  logprobs(): Pick<GenerationResult, 'logprobs' | 'promptLogprobs'> {
    const { logprobs } = this.job;
    if (logprobs === undefined) return {};
    const made = { logprobs: this.#logprobs };
    return logprobs.prompt === true ? { ...made, promptLogprobs: this.#promptLogprobs } : made;
  }

  /** False when a stop string was completed. */
  push(made: readonly number[]): boolean {
    const last = made.at(-1);
    const ends = last !== undefined && this.job.stopTokens.includes(last);
    const { text, kept, stopped } = this.job.text.push(ends ? made.slice(0, -1) : made);
    const tokens = stopped ? made.slice(0, kept) : made;
    this.#stopped = stopped;
    this.tokens.push(...tokens);
    this.#give(text, tokens);
    return !stopped;
  }

  end(): void {
    const rest = this.#stopped ? '' : this.job.text.flush();
    if (rest !== '') this.#give(rest, []);
  }

  #give(text: string, tokens: readonly number[]): void {
    this.text += text;
    const { length } = this.tokens;
    const logprobs = this.#logprobs.slice(length - tokens.length, length);
    this.emit(this.job.logprobs === undefined ? { text, tokens } : { text, tokens, logprobs });
  }
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
