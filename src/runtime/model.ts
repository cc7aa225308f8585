/** A loaded model: what it is, how it runs, and the slots that its sessions live in. */
import type { Counters, Executable } from '../backends/backend.js';
import type { DType, Limits, Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ChatMessage } from '../text/chat-template.js';
import { Grammars, type Grammar } from '../text/grammar.js';
import type { GrammarSource } from '../text/grammar-thread.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { ToolFormat } from '../text/tool-formats.js';
import { UsageError } from '../util/errors.js';
import type { ChatFormat, ChatOptions } from './chat-format.js';
import { checkPrompt, requireMessages } from './check-prompt.js';
import type { Engine } from './engine.js';
import type { SamplingOptions } from './sampling.js';
import { Scheduler } from './scheduler.js';
import { Session } from './session.js';
import { readCounters } from './usage.js';

/** Everything a model is made of; loadModel puts it together. */
export interface ModelParts {
  readonly name: string;
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  readonly chat: ChatFormat;
  readonly schedule: Schedule;
  readonly backend: string;
  /** Format of the weights as they are run. */
  readonly quant: DType;
  readonly formats?: ReadonlyMap<string, DType>;
  /** Format of the KV cache. */
  readonly kv: DType;
  readonly limits: Limits;
  readonly stopTokens: readonly number[];
  /** The sampling that the checkpoint's authors suggest. Used only where a caller asks for it. */
  readonly defaultSampling: SamplingOptions;
  readonly executable: Executable;
  /** Called after the executable was closed. */
  readonly onClose?: () => void;
}

export class Model {
  readonly name: string;
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  readonly schedule: Schedule;
  readonly backend: string;
  /** The format of most matrices; of single ones, by the checkpoint's names, where they differ. */
  readonly quant: DType;
  readonly formats: ReadonlyMap<string, DType> | undefined;
  readonly kv: DType;
  readonly threads: number;
  readonly limits: Limits;
  readonly stopTokens: readonly number[];
  readonly defaultSampling: SamplingOptions;
  readonly #executable: Executable;
  readonly #engine: Engine;
  readonly #grammars: Grammars;
  readonly #freeSlots: number[];
  readonly #onClose: () => void;
  #closing: Promise<void> | undefined;

  constructor(parts: ModelParts) {
    const { name, config, tokenizer, chat, schedule, backend, quant, kv, limits, stopTokens, executable } = parts;
    this.name = name;
    this.config = config;
    this.tokenizer = tokenizer;
    this.schedule = schedule;
    this.backend = backend;
    this.quant = quant;
    this.formats = parts.formats;
    this.kv = kv;
    this.threads = executable.threads;
    this.limits = limits;
    this.stopTokens = stopTokens;
    this.defaultSampling = parts.defaultSampling;
    this.#executable = executable;
    this.#onClose = parts.onClose ?? (() => undefined);
    const scheduler = new Scheduler(executable, { limits });
    const { vocab, context: maxContext } = config;
    this.#engine = { scheduler, tokenizer, chat, limits, maxContext, vocab, stopTokens };
    this.#grammars = new Grammars({ tokenizer, vocab, stopTokens });
    this.#freeSlots = Array.from({ length: limits.slots }, (_, slot) => limits.slots - 1 - slot);
  }

  /** What the executable has counted so far. */
  get counters(): Counters {
    return readCounters(this.#executable.counters);
  }

  get hasChatTemplate(): boolean {
    return this.#engine.chat.available;
  }

  /** How answers call tools; undefined where the chat template knows none. */
  get toolFormat(): ToolFormat | undefined {
    return this.#engine.chat.toolFormat;
  }

  /** Takes a free slot. Throws UsageError where all are taken, or after `close`. */
  session(): Session {
    if (this.#closing !== undefined) throw new UsageError('this model is closed');
    const slot = this.#freeSlots.pop();
    if (slot === undefined) {
      const { slots } = this.limits;
      throw new UsageError(`all ${slots} slots of the model are taken by open sessions`, {
        hint: 'close a session or load the model with more slots',
      });
    }
    return new Session(this.#engine, slot, () => this.#freeSlots.push(slot));
  }

  /** Throws what `session().generate(tokens)` would fail with: UsageError or ContextOverflowError. */
  checkPrompt(tokens: readonly number[]): void {
    const { context: maxContext, vocab } = this.config;
    checkPrompt(tokens, { context: this.limits.context, maxContext, vocab });
  }

  /**
   * Messages as the tokens of a prompt. Throws UsageError for what are no messages, TemplateError where the model has no
   * template or it fails.
   */
  async applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): Promise<number[]> {
    requireMessages(messages);
    const text = await this.#engine.chat.render(messages, options);
    return this.tokenizer.encode(text, { addSpecial: false });
  }

  /**
   * A grammar that texts of this model can follow; release it after use. Throws UsageError for one that is malformed, not
   * supported or too costly, OverloadedError where too many are in use.
   */
  compileGrammar(source: GrammarSource): Promise<Grammar> {
    return this.#grammars.compile(source);
  }

  /** Stops all sessions and frees what the backend holds. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await Promise.all([this.#engine.scheduler.close(), this.#engine.chat.close(), this.#grammars.close()]);
    } finally {
      this.#onClose();
    }
  }
}
