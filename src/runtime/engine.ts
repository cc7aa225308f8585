/** What the sessions of one model share. */
import type { Limits } from '../ir/program.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { ChatFormat } from './chat-format.js';
import type { Scheduler } from './scheduler.js';

export interface Engine {
  readonly scheduler: Scheduler;
  readonly tokenizer: Tokenizer;
  readonly chat: ChatFormat;
  readonly limits: Limits;
  /** Positions that the model was made for. */
  readonly maxContext: number;
  /** Rows of the embedding: token ids are below this. */
  readonly vocab: number;
  /** Tokens that end a text. */
  readonly stopTokens: readonly number[];
}
