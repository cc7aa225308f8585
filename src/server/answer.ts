/** Answers one request for texts: whole, or as a stream of events. */
import type { Context } from 'hono';
import type { HttpBindings } from '@hono/node-server';
import type { Logger } from 'pino';
import type { GenerationResult } from '../runtime/generation.js';
import { AnswerWriter, usageOf, type AnswerFormat } from './answer-format.js';
import { toApiError } from './api-error.js';
import { dataEvent, eventStream } from './event-stream.js';
import { TextOffsets } from './logprob-format.js';
import type { ServerMetrics } from './metrics.js';
import type { RequestScope } from './request-scope.js';
import type { TextRequest } from './text-request.js';
import { Texts, type TextEvent } from './texts.js';

/** What the handlers find in the context of a request. */
export interface AppEnv {
  /** Absent where the app is called without a socket. */
  Bindings: Partial<HttpBindings>;
  Variables: { readonly requestId: string; readonly log: Logger };
}

export interface AnswerOptions {
  readonly format: AnswerFormat;
  readonly scope: RequestScope;
  readonly metrics: ServerMetrics;
  readonly stallMs: number;
}

/** Throws OverloadedError where the queue is full; for an answer that is no stream, whatever makes it fail. */
export async function answer(
  context: Context<AppEnv>,
  request: TextRequest,
  options: AnswerOptions,
): Promise<Response> {
  const { scope, metrics, format } = options;
  const texts = new Texts(request, scope, metrics);
  const writer = new AnswerWriter(format, request);
  if (request.stream) return streamed(context, texts, request, writer, options);
  try {
    const all = await texts.all();
    logTexts(
      context,
      request,
      all.map(({ result }) => result),
    );
    return context.json(writer.whole(all));
  } finally {
    scope.end();
  }
}

function streamed(
  context: Context<AppEnv>,
  texts: Texts,
  request: TextRequest,
  writer: AnswerWriter,
  { format, scope, stallMs }: AnswerOptions,
): Response {
  const results: GenerationResult[] = [];
  const body = eventStream(events(), {
    stallMs,
    onStall: () => {
      context.get('log').warn('the client does not read its stream');
      scope.abort('client');
      context.env.outgoing?.destroy();
    },
    onCancel: () => scope.abort('client'),
  });
  return context.body(body, 200, {
    'Content-Type': 'text/event-stream; charset=utf-8',
    // Asks proxies to hand events on as they come.
    'X-Accel-Buffering': 'no',
  });

  async function* events(): AsyncGenerator<string, void, undefined> {
    /** By choice, from its first event on. */
    const opened = new Map<number, TextOffsets>();
    /** By choice: calls of tools that were sent. */
    const called = new Map<number, number>();
    try {
      for await (const event of texts.events()) {
        const { choice } = event;
        const offsets = opened.get(choice) ?? new TextOffsets(request.served.model);
        const opening = opened.has(choice) ? undefined : format.opening(choice);
        opened.set(choice, offsets);
        if (opening !== undefined) yield dataEvent(writer.chunk(opening));
        if (event.kind === 'end') results[choice] = event.result;
        const chunk = chunkOf(event, format, request, offsets);
        if (chunk !== undefined) yield dataEvent(writer.chunk(chunk));
        if (event.kind === 'end' || event.calls.length === 0) continue;
        const first = called.get(choice) ?? 0;
        called.set(choice, first + event.calls.length);
        yield dataEvent(writer.chunk(format.calls(choice, event.calls, first, request)));
      }
      logTexts(context, request, results);
      if (request.includeUsage) yield dataEvent(writer.usageChunk(results));
      yield dataEvent('[DONE]');
    } catch (error) {
      const failure = toApiError(error, request.served.retryAfter);
      logFailure(context, failure);
      yield dataEvent(failure.body);
    } finally {
      scope.end();
    }
  }
}

/** Nothing for a piece whose text is not certain yet. */
function chunkOf(
  event: TextEvent,
  format: AnswerFormat,
  request: TextRequest,
  offsets: TextOffsets,
): object | undefined {
  switch (event.kind) {
    case 'piece': {
      const { text, logprobs = [] } = event.piece;
      return text === '' && logprobs.length === 0
        ? undefined
        : format.piece(event.choice, event.piece, request, offsets);
    }
    case 'end':
      return format.closing(event.choice, event.reason);
    default:
      return event satisfies never;
  }
}

/** Counts and times; never what was said. */
function logTexts(context: Context<AppEnv>, request: TextRequest, results: readonly GenerationResult[]): void {
  const { prompt_tokens_details, ...usage } = usageOf(results, request.choices);
  context.get('log').info(
    {
      model: request.served.id,
      texts: results.length,
      ...usage,
      cached_tokens: prompt_tokens_details.cached_tokens,
      prefill_ms: Math.round(Math.max(...results.map(({ timings }) => timings.prefillMs))),
      decode_ms: Math.round(Math.max(...results.map(({ timings }) => timings.decodeMs))),
    },
    'texts made',
  );
}

/** What we did wrong is an error, with its cause; all else is the client's affair. */
export function logFailure(context: Context<AppEnv>, { details, message, cause }: ReturnType<typeof toApiError>): void {
  const log = context.get('log');
  if (details.status === 500) log.error({ err: cause }, message);
  else log.info({ status: details.status, code: details.code }, 'no answer');
}
