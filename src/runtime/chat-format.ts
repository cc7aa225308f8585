/** Messages to prompt text, with the template and the special tokens of one checkpoint. */
import { ChatRenderer, requireTemplate, type ChatMessage, type ChatRequest } from '../text/chat-template.js';
import { toolFormatOf, type ToolFormat } from '../text/tool-formats.js';

export interface ChatSource {
  /** Jinja source; absent where the model is not made for conversation. */
  readonly template?: string;
  /** The same for conversations with tools, where that is another. */
  readonly toolTemplate?: string;
  /** Parsed tokenizer_config.json, which names the special tokens. */
  readonly tokenizerConfig?: Readonly<Record<string, unknown>>;
}

export type ChatOptions = Partial<Omit<ChatRequest, 'messages' | 'bosToken' | 'eosToken'>>;

export class ChatFormat {
  readonly #source: ChatSource;
  readonly #renderer = new ChatRenderer();

  constructor(source: ChatSource) {
    this.#source = source;
  }

  get available(): boolean {
    return this.#source.template !== undefined;
  }

  /** How answers in this format call tools; undefined where the template knows none. */
  get toolFormat(): ToolFormat | undefined {
    const { template, toolTemplate = template } = this.#source;
    return toolTemplate === undefined ? undefined : toolFormatOf(toolTemplate);
  }

  /** The prompt text, special tokens included. Throws TemplateError where there is no template or it fails. */
  async render(messages: readonly ChatMessage[], options: ChatOptions = {}): Promise<string> {
    const { template, toolTemplate = template, tokenizerConfig = {} } = this.#source;
    const bosToken = tokenText(tokenizerConfig['bos_token']);
    const eosToken = tokenText(tokenizerConfig['eos_token']);
    const withTools = (options.tools ?? []).length > 0 || messages.some(tellsOfTools);
    return this.#renderer.render(requireTemplate(withTools ? toolTemplate : template), {
      addGenerationPrompt: true,
      ...options,
      messages,
      ...(bosToken === undefined ? {} : { bosToken }),
      ...(eosToken === undefined ? {} : { eosToken }),
    });
  }

  close(): Promise<void> {
    return this.#renderer.close();
  }
}

/** It holds calls of tools, or what came of one. */
function tellsOfTools({ role, tool_calls: calls }: ChatMessage): boolean {
  return role === 'tool' || (Array.isArray(calls) && calls.length > 0);
}

/** A special token is written as its text or as an object that holds it. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null || !('content' in value)) return undefined;
  return typeof value.content === 'string' ? value.content : undefined;
}
