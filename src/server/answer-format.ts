/** The two shapes of an answer: a conversation's and a plain completion's, whole and in chunks. */
import { randomUUID } from 'node:crypto';
import type { GenerationResult, Piece } from '../runtime/generation.js';
import type { Model } from '../runtime/model.js';
import type { ToolPiece } from '../text/tool-call-stream.js';
import type { ToolCall } from '../text/tool-formats.js';
import { unreachable } from '../util/assert.js';
import { chatLogprobs, completionLogprobs, TextOffsets } from './logprob-format.js';
import type { FinishReason, Text } from './texts.js';
import type { TextRequest } from './text-request.js';

/** What differs between chat and completion. `index` counts the texts of a request. */
export interface AnswerFormat {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** The first chunk of a text, before any of it is there. */
  opening(index: number): object | undefined;
  /** `offsets`: of this text, of which it has seen the pieces before. */
  piece(index: number, piece: Piece, request: TextRequest, offsets: TextOffsets): object;
  /** Calls of tools; `first` counts those of the text before them. */
  calls(index: number, calls: readonly ToolCall[], first: number, request: TextRequest): object;
  closing(index: number, reason: FinishReason): object;
  whole(index: number, text: Text, request: TextRequest): object;
}

export const chatFormat: AnswerFormat = {
  idPrefix: 'chatcmpl-',
  object: 'chat.completion',
  chunkObject: 'chat.completion.chunk',
  opening: (index) => chatChunk(index, { role: 'assistant', content: '' }),
  piece: (index, { text, logprobs }, { served }) =>
    chatChunk(index, { content: text }, logprobs === undefined ? null : chatLogprobs(served.model, logprobs)),
  calls: (index, calls, first, request) =>
    chatChunk(index, {
      tool_calls: calls.map((call, i) => ({ index: first + i, ...wireCall(call, request) })),
    }),
  closing: (index, reason) => chatChunk(index, {}, null, reason),
  whole: (index, { result, reason, parts }, request) => ({
    index,
    message: {
      role: 'assistant',
      ...contentOf(parts ?? { text: result.text, calls: [] }, request),
      refusal: null,
    },
    logprobs: result.logprobs === undefined ? null : chatLogprobs(request.served.model, result.logprobs),
    finish_reason: reason,
  }),
};

export const completionFormat: AnswerFormat = {
  idPrefix: 'cmpl-',
  object: 'text_completion',
  chunkObject: 'text_completion',
  opening: () => undefined,
  calls: () => unreachable('completions have no tools'),
  piece: (index, { text, logprobs }, { served }, offsets) =>
    completionChoice(index, text, logprobs === undefined ? null : completionLogprobs(served.model, logprobs, offsets)),
  closing: (index, reason) => completionChoice(index, '', null, reason),
  whole: (index, { result, reason }, { served, echo, choices }) => {
    const prompt = echo?.[Math.floor(index / choices)] ?? '';
    return completionChoice(index, prompt + result.text, wholeLogprobs(served.model, result), reason);
  },
};

function contentOf({ text, calls }: ToolPiece, request: TextRequest): object {
  if (calls.length === 0) return { content: text };
  return { content: text === '' ? null : text, tool_calls: calls.map((call) => wireCall(call, request)) };
}

function wireCall(call: ToolCall, { toolUse }: TextRequest): object {
  const random = randomUUID().replaceAll('-', '');
  // Mistral's templates want ids of this form back.
  const id = toolUse?.format.name === 'mistral' ? random.slice(0, 9) : `call_${random.slice(0, 24)}`;
  return { id, type: 'function', function: call };
}

function wholeLogprobs(model: Model, { logprobs, promptLogprobs, promptTokens }: GenerationResult): object | null {
  if (logprobs === undefined) return null;
  const offsets = new TextOffsets(model, promptLogprobs !== undefined);
  if (promptLogprobs === undefined) return completionLogprobs(model, logprobs, offsets);
  // Nothing is before the first token, so nothing can be said about it.
  return completionLogprobs(model, [promptTokens[0]!, ...promptLogprobs, ...logprobs], offsets);
}

function chatChunk(index: number, delta: object, logprobs: object | null = null, reason: FinishReason | null = null) {
  return { index, delta, logprobs, finish_reason: reason };
}

function completionChoice(
  index: number,
  text: string,
  logprobs: object | null = null,
  reason: FinishReason | null = null,
): object {
  return { index, text, logprobs, finish_reason: reason };
}

export interface TokenUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
}

/** `results` in the order of the choices. A prompt counts once, however many texts were made of it. */
export function usageOf(results: readonly GenerationResult[], choices: number): TokenUsage {
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
  const firsts = results.filter((_, i) => i % choices === 0);
  const prompt = sum(firsts.map(({ promptTokens }) => promptTokens.length));
  const made = sum(results.map(({ tokens }) => tokens.length));
  return {
    prompt_tokens: prompt,
    completion_tokens: made,
    total_tokens: prompt + made,
    prompt_tokens_details: { cached_tokens: sum(firsts.map(({ cachedTokens }) => cachedTokens)) },
  };
}

/** Makes the objects of one answer, which share its id. */
export class AnswerWriter {
  readonly #base: object;
  readonly #format: AnswerFormat;
  readonly #request: TextRequest;

  constructor(format: AnswerFormat, request: TextRequest) {
    this.#format = format;
    this.#request = request;
    this.#base = {
      id: format.idPrefix + randomUUID().replaceAll('-', ''),
      created: Math.floor(Date.now() / 1000),
      model: request.served.id,
      system_fingerprint: request.served.fingerprint,
    };
  }

  whole(texts: readonly Text[]): object {
    const usage = usageOf(
      texts.map(({ result }) => result),
      this.#request.choices,
    );
    const choices = texts.map((text, index) => this.#format.whole(index, text, this.#request));
    return { ...this.#base, object: this.#format.object, choices, usage };
  }

  /** A chunk for one choice. Where usage is asked for, every chunk has the field. */
  chunk(choice: object): object {
    const usage = this.#request.includeUsage ? { usage: null } : {};
    return { ...this.#base, object: this.#format.chunkObject, choices: [choice], ...usage };
  }

  /** The last chunk of a stream with `include_usage`. */
  usageChunk(results: readonly GenerationResult[]): object {
    const usage = usageOf(results, this.#request.choices);
    return { ...this.#base, object: this.#format.chunkObject, choices: [], usage };
  }
}
