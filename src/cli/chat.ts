/**
 * `kloop chat MODEL`: a conversation in the model's own chat template. Ctrl+C stops the answer, and at an empty prompt
 * the second one leaves; Ctrl+D leaves. Where stdin is a pipe every line is a turn, and Ctrl+C ends them all.
 */
import { openCheckpoint } from '../checkpoint/directory.js';
import { resolveModel } from '../checkpoint/resolve.js';
import type { GenerationResult } from '../runtime/generation.js';
import { metricsOf } from '../runtime/metrics.js';
import type { Model } from '../runtime/model.js';
import type { SamplingOptions } from '../runtime/sampling.js';
import type { Session } from '../runtime/session.js';
import type { ChatMessage } from '../text/chat-template.js';
import { AbortedError, ContextOverflowError, messageOf, TemplateError } from '../util/errors.js';
import { listenForInterrupt } from './interrupt.js';
import { lineSource, type LineEvent, type LineSource } from './line-source.js';
import { loadForCli } from './load.js';
import {
  addLoadOptions,
  addSamplingOptions,
  defined,
  integer,
  loadOptionsOf,
  samplingOf,
  type LoadFlags,
  type SamplingFlags,
} from './options.js';
import { forTerminal, note, paint } from './output.js';
import { refusePricedOnly } from './priced-only.js';
import { counted, rateOf } from './summary.js';
import type { Verb } from './verb.js';

interface Flags extends LoadFlags, SamplingFlags {
  readonly system?: string;
  readonly maxTokens?: number;
}

/** Where neither the command line nor the checkpoint says anything. */
const defaultTemperature = 0.7;

const help = [
  '/help   this list',
  '/reset  forget the conversation',
  '/exit   leave, as Ctrl+D does',
  'Ctrl+C stops an answer.',
];

export const chat: Verb = (program) => {
  const command = program
    .command('chat')
    .description('talk with an instruction-tuned model')
    .argument('<model>', 'a directory, a .gguf file, or OWNER/NAME that has been pulled')
    .option('--system <text>', 'instructions that stand before the conversation')
    .option('--max-tokens <n>', 'tokens of an answer at most (default: until the context is full)', integer(1));
  addLoadOptions(addSamplingOptions(command, "the checkpoint's, or 0.7")).action(chatAction);
};

async function chatAction(spec: string, flags: Flags): Promise<void> {
  requireChatTemplate(spec);
  const model = await loadInterruptibly(spec, flags);
  const lines = lineSource(paint(process.stdout, 'bold', '> '));
  try {
    if (process.stdin.isTTY) note(`${model.name}; /help lists the commands, Ctrl+D leaves`);
    await new Conversation(model, flags).talk(lines);
  } finally {
    lines.close();
    await model.close();
  }
}

/** Before the long work of loading. */
function requireChatTemplate(spec: string): void {
  refusePricedOnly(spec);
  const { config, chatTemplate, weights } = openCheckpoint(resolveModel(spec), spec);
  weights.close();
  if (chatTemplate !== undefined) return;
  throw new TemplateError(`${config.name} has no chat template, so it is not made for conversation`, {
    hint: 'use `kloop run` to continue a text, or an instruction-tuned checkpoint',
  });
}

async function loadInterruptibly(spec: string, flags: Flags): Promise<Model> {
  using interrupt = listenForInterrupt();
  return await loadForCli(spec, { ...loadOptionsOf(flags), slots: 1, signal: interrupt.signal });
}

class Conversation {
  readonly #model: Model;
  readonly #session: Session;
  readonly #sampling: SamplingOptions;
  readonly #system: readonly ChatMessage[];
  readonly #maxTokens: number | undefined;
  #messages: ChatMessage[];

  constructor(model: Model, flags: Flags) {
    this.#model = model;
    this.#session = model.session();
    this.#sampling = { temperature: defaultTemperature, ...model.defaultSampling, ...samplingOf(flags) };
    this.#system = flags.system === undefined ? [] : [{ role: 'system', content: flags.system }];
    this.#maxTokens = flags.maxTokens;
    this.#messages = [...this.#system];
  }

  async talk(lines: LineSource): Promise<void> {
    let leaving = false;
    for (;;) {
      const event = await lines.next();
      if (event.kind === 'interrupt') {
        // The cursor stands behind the prompt.
        note('');
        if (leaving) return;
        leaving = event.empty;
        if (leaving) note('Ctrl+C again leaves');
        continue;
      }
      leaving = false;
      if (!(await this.#handle(event))) return;
    }
  }

  /** False when it is time to leave. */
  async #handle(event: Exclude<LineEvent, { kind: 'interrupt' }>): Promise<boolean> {
    if (event.kind === 'end') {
      if (process.stdin.isTTY) note('');
      return false;
    }
    const text = event.text.trim();
    switch (text) {
      case '':
        return true;
      case '/exit':
        return false;
      case '/help':
        for (const line of help) note(line);
        return true;
      case '/reset':
        this.#messages = [...this.#system];
        note('forgotten');
        return true;
      default:
        if (/^\/[a-z]+$/.test(text)) note(`there is no command ${text}; /help lists them`);
        else await this.#turn(text);
        return true;
    }
  }

  async #turn(text: string): Promise<void> {
    const before = this.#messages;
    this.#messages = [...before, { role: 'user', content: text }];
    try {
      const result = await this.#answer();
      this.#messages.push({ role: 'assistant', content: result.text });
      this.#report(result);
      if (result.finishReason === 'abort' && !process.stdin.isTTY) throw new AbortedError('stopped with Ctrl+C');
    } catch (error) {
      // A conversation that outgrew the context can go on after /reset; whoever sends a script wants to know at once.
      if (!(error instanceof ContextOverflowError) || !process.stdin.isTTY) throw error;
      this.#messages = before;
      note(`kloop: ${messageOf(error)}, or start over with /reset`);
    }
  }

  async #answer(): Promise<GenerationResult> {
    using interrupt = listenForInterrupt();
    const { stdout } = process;
    const generation = this.#session.generate(
      { messages: this.#messages },
      { ...this.#sampling, ...defined({ maxTokens: this.#maxTokens }), signal: interrupt.signal },
    );
    for await (const piece of generation) stdout.write(forTerminal(piece.text, stdout));
    stdout.write('\n');
    return await generation.result;
  }

  #report(result: GenerationResult): void {
    if (result.contextFull) {
      note(`kloop: the context of ${this.#model.limits.context} tokens is full; /reset starts over`);
    }
    if (!process.stdin.isTTY || !process.stderr.isTTY) return;
    const line = `${counted(result.tokens.length, 'token')}, ${rateOf(metricsOf(result))}`;
    note(paint(process.stderr, 'dim', result.finishReason === 'abort' ? `stopped after ${line}` : line));
  }
}
