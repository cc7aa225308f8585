/** The messages, and the text that is being made. */
import { stream, type Inspection } from './api.js';
import { h } from './dom.js';

interface Message {
  readonly role: 'user' | 'assistant';
  content: string;
}

const names = { user: 'You', assistant: 'Model' } as const;

export class Conversation {
  readonly #messages: Message[] = [];

  constructor(private readonly view: HTMLElement) {
    this.clear();
  }

  clear(): void {
    this.#messages.length = 0;
    this.view.replaceChildren(h('p', { class: 'empty' }, 'Nothing has been said yet.'));
  }

  /** How it ended: `stop`, `length`, or where `signal` came first `abort`, or `unanswered` and nothing was said. */
  async ask(
    prompt: string,
    { chat, model }: Inspection,
    settings: Readonly<Record<string, number>>,
    signal: AbortSignal,
  ): Promise<string> {
    // A model without a template goes on with all that was written so far.
    const written = chat ? '' : this.#messages.map(({ content }) => content).join('');
    this.#add('user', prompt);
    const { answer, shown } = this.#add('assistant', '');
    const messages = this.#messages.slice(0, -1);
    const [path, body] = chat
      ? ['/v1/chat/completions', { model, messages, ...settings }]
      : ['/v1/completions', { model, prompt: written + prompt, max_tokens: 200, ...settings }];
    try {
      let end = 'stop';
      for await (const { text, finish } of stream(path, body, signal)) {
        const follow = this.#atEnd;
        answer.content += text;
        shown.append(text);
        end = finish ?? end;
        if (follow) this.view.scrollTop = this.view.scrollHeight;
      }
      return end;
    } catch (error) {
      // Nothing was answered; the question can be asked again.
      if (answer.content === '') this.#forget(2);
      if (signal.aborted) return answer.content === '' ? 'unanswered' : 'abort';
      throw error;
    }
  }

  get #atEnd(): boolean {
    return this.view.scrollHeight - this.view.scrollTop - this.view.clientHeight < 40;
  }

  #add(role: Message['role'], content: string): { readonly answer: Message; readonly shown: HTMLElement } {
    if (this.#messages.length === 0) this.view.replaceChildren();
    const answer: Message = { role, content };
    this.#messages.push(answer);
    const shown = h('p', {}, content);
    this.view.append(h('article', { class: role }, h('h3', {}, names[role]), shown));
    this.view.scrollTop = this.view.scrollHeight;
    return { answer, shown };
  }

  #forget(count: number): void {
    this.#messages.splice(-count);
    for (let i = 0; i < count; i++) this.view.lastElementChild?.remove();
    if (this.#messages.length === 0) this.clear();
  }
}
