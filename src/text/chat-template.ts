/**
 * Renders chat templates. A template is a program out of a model file, so it runs in a process of its own: with a time
 * limit, a heap limit, and no code generation from strings. (A worker thread does not do: when a template allocates a few
 * hundred MB at once, V8 aborts the whole process in spite of the thread's resource limits.)
 */
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { messageOf, TemplateError, UsageError } from '../util/errors.js';
import type { RenderAnswer, RenderJob } from './chat-template-process.js';

/** One turn. Templates also see any further fields, such as `tool_calls` or `name`. */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  readonly [field: string]: unknown;
}

/** Milliseconds, UTF-16 units of the result and of the template, MiB of the renderer's heap. */
export interface TemplateLimits {
  readonly timeMs: number;
  readonly outputLength: number;
  readonly templateLength: number;
  readonly heapMib: number;
}

const templateLimits: TemplateLimits = {
  timeMs: 2000,
  outputLength: 4 * 1024 * 1024,
  templateLength: 1024 * 1024,
  heapMib: 256,
};

/** What a template is rendered with. Everything has to be representable in JSON. */
export interface ChatRequest {
  readonly messages: readonly ChatMessage[];
  /** Descriptions of functions in the format of the model's documentation. */
  readonly tools?: readonly object[];
  /** End with the header of the assistant's answer. */
  readonly addGenerationPrompt: boolean;
  readonly bosToken?: string;
  readonly eosToken?: string;
  /** Further variables, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** The time that `strftime_now` tells. Default: now. */
  readonly now?: Date;
}

/** Throws TemplateError where there is none. */
export function requireTemplate(template: string | undefined): string {
  if (template !== undefined && template !== '') return template;
  throw new TemplateError('the model has no chat template', {
    hint: 'use an instruction-tuned checkpoint, or complete a plain prompt instead',
  });
}

/** Renders templates one after the other in one process, which starts when first needed and again after a failure. */
export class ChatRenderer {
  readonly #limits: TemplateLimits;
  #child: ChildProcess | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(limits: Partial<TemplateLimits> = {}) {
    this.#limits = { ...templateLimits, ...limits };
  }

  /** The prompt. Throws TemplateError when the template is broken, calls `raise_exception`, or exceeds a limit. */
  render(template: string, request: ChatRequest): Promise<string> {
    const result = this.#queue.then(() => this.#render(template, request));
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** Ends the process, after the renders that are under way. Without this it ends together with our own process. */
  async close(): Promise<void> {
    await this.#queue;
    this.#drop();
  }

  async #render(template: string, request: ChatRequest): Promise<string> {
    const { timeMs, outputLength, templateLength } = this.#limits;
    if (template.length > templateLength) {
      throw new TemplateError(
        `the chat template has ${template.length} characters, at most ${templateLength} are allowed`,
      );
    }
    const now = request.now ?? new Date();
    const answer = await ask(await this.#running(), {
      template,
      variables: serialize(request),
      localMs: now.getTime() - now.getTimezoneOffset() * 60_000,
      timeMs,
      outputLength,
    });
    switch (answer.kind) {
      case 'text':
        return answer.text;
      case 'failed':
        throw new TemplateError(`the chat template ${answer.message}`);
      case 'lost':
        this.#drop();
        throw new TemplateError(`the chat template ${answer.message}`);
      default:
        return answer satisfies never;
    }
  }

  async #running(): Promise<ChildProcess> {
    if (this.#child !== undefined) return this.#child;
    const child = await startChild(this.#limits.heapMib);
    this.#child = child;
    // It may also end while it is idle, for example with Ctrl+C in the terminal.
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined;
    });
    return child;
  }

  #drop(): void {
    this.#child?.kill('SIGKILL');
    this.#child = undefined;
  }
}

function serialize({ messages, tools, addGenerationPrompt, bosToken, eosToken, variables }: ChatRequest): string {
  try {
    return JSON.stringify({
      ...variables,
      messages,
      tools: tools ?? null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
      bos_token: bosToken,
      eos_token: eosToken,
    });
  } catch (error) {
    throw new UsageError(`the messages cannot be written as JSON: ${messageOf(error)}`, { cause: error });
  }
}

async function startChild(heapMib: number): Promise<ChildProcess> {
  // src/text and dist/text are at the same depth, so this finds the built file from both.
  const entry = fileURLToPath(new URL('../../dist/text/chat-template-process.js', import.meta.url));
  const child = fork(entry, [], {
    execArgv: [`--max-old-space-size=${heapMib}`, '--disallow-code-generation-from-strings'],
    env: { ...process.env, NODE_OPTIONS: '' },
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  await new Promise<void>((resolve, reject) => {
    child.once('message', () => resolve());
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`internal error: ${entry} ended at its start with code ${code}`)));
  });
  setReferenced(child, false);
  return child;
}

/** The child gave no answer and is of no further use. */
interface Lost {
  readonly kind: 'lost';
  readonly message: string;
}

function ask(child: ChildProcess, job: RenderJob): Promise<RenderAnswer | Lost> {
  return new Promise((resolve) => {
    const settle = (answer: RenderAnswer | Lost): void => {
      clearTimeout(timer);
      child.off('message', settle);
      child.off('exit', onExit);
      setReferenced(child, false);
      resolve(answer);
    };
    const onExit = (): void => settle({ kind: 'lost', message: 'used more memory than allowed' });
    // The child keeps the time limit itself; this is for the case that it cannot.
    const timer = setTimeout(
      () => settle({ kind: 'lost', message: `took longer than ${job.timeMs / 1000} s` }),
      job.timeMs + 1000,
    );
    child.on('message', settle);
    child.on('exit', onExit);
    setReferenced(child, true);
    child.send(job, (error) => {
      if (error !== null) settle({ kind: 'lost', message: `could not be sent to its renderer: ${error.message}` });
    });
  });
}

/** Whether the child keeps our process alive. */
function setReferenced(child: ChildProcess, referenced: boolean): void {
  if (referenced) {
    child.ref();
    child.channel?.ref();
  } else {
    child.unref();
    child.channel?.unref();
  }
}
