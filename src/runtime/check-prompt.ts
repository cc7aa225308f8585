/** What a prompt must be before it may reach the kernels. */
import { ContextOverflowError, UsageError } from '../util/errors.js';
import { isObject, shown } from './check-options.js';

export interface PromptBounds {
  /** Positions of a sequence. */
  readonly context: number;
  /** Positions that the model was made for: the most that a context can have. */
  readonly maxContext: number;
  /** Token ids are below this. */
  readonly vocab: number;
}

/** For callers whose types were not checked. Throws UsageError for what are no messages. */
export function requireMessages(messages: unknown): void {
  if (!Array.isArray(messages)) {
    throw new UsageError(`the messages are ${shown(messages)}, must be a list of { role, content }`);
  }
  const wrong = Array.from<unknown>(messages).findIndex((message) => !isObject(message));
  if (wrong < 0) return;
  throw new UsageError(`message ${wrong} is ${shown(messages[wrong])}, must be { role, content }`);
}

/** What to do about a prompt that is too long: a larger context is offered where the model has one. */
export function shorterPrompt(context: number, maxContext: number): string {
  if (context >= maxContext) return 'shorten the prompt';
  return `shorten the prompt or load the model with a larger context, up to ${maxContext}`;
}

/** Throws UsageError for an empty prompt or a token that does not exist, ContextOverflowError for one that is too long. */
export function checkPrompt(tokens: readonly number[], { context, maxContext, vocab }: PromptBounds): void {
  if (tokens.length === 0) throw new UsageError('the prompt is empty', { hint: 'give at least one token' });
  if (tokens.length > context) {
    throw new ContextOverflowError(context, `the prompt has ${tokens.length} tokens, the context holds ${context}`, {
      hint: shorterPrompt(context, maxContext),
    });
  }
  const wrong = tokens.findIndex((token) => !Number.isInteger(token) || token < 0 || token >= vocab);
  if (wrong < 0) return;
  throw new UsageError(`token ${shown(tokens[wrong])} is not one of the model, which has ${vocab}`, {
    hint: `give whole numbers from 0 to ${vocab - 1}`,
  });
}
