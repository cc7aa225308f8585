/** What a prompt must be before it may reach the kernels. */
import { ContextOverflowError, UsageError } from '../util/errors.js';

export interface PromptBounds {
  /** Positions of a sequence. */
  readonly context: number;
  /** Token ids are below this. */
  readonly vocab: number;
}

/** Throws UsageError for an empty prompt or a token that does not exist, ContextOverflowError for one that is too long. */
export function checkPrompt(tokens: readonly number[], { context, vocab }: PromptBounds): void {
  if (tokens.length === 0) throw new UsageError('the prompt is empty', { hint: 'give at least one token' });
  if (tokens.length > context) {
    throw new ContextOverflowError(context, `the prompt has ${tokens.length} tokens, the context holds ${context}`, {
      hint: 'shorten the prompt or load the model with a larger context',
    });
  }
  const wrong = tokens.find((token) => !Number.isInteger(token) || token < 0 || token >= vocab);
  if (wrong !== undefined) throw new UsageError(`token ${wrong} is not one of the model, which has ${vocab}`);
}
