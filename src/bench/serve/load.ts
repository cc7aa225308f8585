/**
 * Load on an OpenAI-compatible server: completions of given lengths, streamed, so many at a time or so many a second. Works
 * on any server with that API.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { messageOf } from '../../util/errors.js';
import { uniform } from '../../util/prng.js';

export interface LoadOptions {
  /** `http://127.0.0.1:8080`, without a path. */
  readonly url: string;
  readonly model: string;
  readonly apiKey?: string;
  readonly requests: number;
  /** Requests under way at a time, at most. */
  readonly streams: number;
  /** Requests that arrive in a second, as a Poisson process; default: as soon as there is room. */
  readonly rate?: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Prompts are tokens below it, drawn with `seed`. */
  readonly vocab: number;
  readonly seed: number;
  readonly onDone?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Times in milliseconds. */
export interface RequestResult {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly firstTokenMs: number;
  readonly latencyMs: number;
  /** Between pieces of the stream. */
  readonly gapsMs: readonly number[];
  /** What went wrong, if anything; the times are then of no use. */
  readonly error?: string;
}

export interface LoadResult {
  readonly seconds: number;
  readonly requests: readonly RequestResult[];
}

/** Requests that fail are part of the result. */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const { requests, streams, rate, seed, onDone, signal } = options;
  const results: RequestResult[] = [];
  const arrivals = arrivalsOf(requests, rate, seed);
  const start = performance.now();
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < requests && signal?.aborted !== true) {
      const number = next++;
      const wait = arrivals[number]! - (performance.now() - start);
      if (wait > 0) await pause(wait);
      results.push(await request(number, options));
      onDone?.(results.length, requests);
    }
  };
  await Promise.all(Array.from({ length: Math.min(streams, requests) }, worker));
  return { seconds: (performance.now() - start) / 1000, requests: results };
}

/** Milliseconds after the start. */
function arrivalsOf(requests: number, rate: number | undefined, seed: number): number[] {
  let at = 0;
  return Array.from({ length: requests }, (_, i) => {
    if (rate !== undefined && i > 0) at += (-Math.log(1 - uniform(i, [seed, 1])) / rate) * 1000;
    return at;
  });
}

async function request(number: number, options: LoadOptions): Promise<RequestResult> {
  const { url, model, apiKey, inputTokens, outputTokens, vocab, seed, signal } = options;
  const start = performance.now();
  const gapsMs: number[] = [];
  let firstTokenMs = 0;
  let last = start;
  let usage = { prompt_tokens: 0, completion_tokens: 0 };
  const failed = (error: string): RequestResult => ({
    ...{ inputTokens: 0, outputTokens: 0, firstTokenMs, latencyMs: performance.now() - start, gapsMs, error },
  });
  try {
    const response = await fetch(new URL('/v1/completions', url), {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      body: JSON.stringify({
        model,
        // Different from the first token on, so that no cache helps.
        prompt: Array.from({ length: inputTokens }, (_, i) => Math.floor(uniform(i, [seed, number + 2]) * vocab)),
        max_tokens: outputTokens,
        ignore_eos: true,
        seed: number,
        stream: true,
        stream_options: { include_usage: true },
      }),
      ...(signal === undefined ? {} : { signal }),
    });
    if (!response.ok || response.body === null) return failed(`status ${response.status}: ${await response.text()}`);
    for await (const event of eventsOf(response.body)) {
      const { choices = [], usage: told, error } = JSON.parse(event) as Piece;
      if (error !== undefined) return failed(error.message);
      if (told != null) usage = told;
      if (choices.length === 0) continue;
      const now = performance.now();
      if (firstTokenMs === 0) firstTokenMs = now - start;
      else if (choices[0]?.text !== '') gapsMs.push(now - last);
      last = now;
    }
  } catch (error) {
    return failed(messageOf(error));
  }
  return {
    inputTokens: usage.prompt_tokens,
    outputTokens: usage.completion_tokens,
    firstTokenMs,
    latencyMs: last - start,
    gapsMs,
  };
}

interface Piece {
  readonly choices?: readonly { readonly text: string }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
  readonly error?: { readonly message: string };
}

/** The data of server-sent events, up to `[DONE]`. @throws where the stream ends before it */
async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const bytes of body) {
    text += decoder.decode(bytes, { stream: true });
    const events = text.split('\n\n');
    text = events.pop() ?? '';
    for (const event of events) {
      const data = event.replace(/^data: ?/, '');
      if (data === '[DONE]') return;
      if (event.startsWith('data:')) yield data;
    }
  }
  throw new Error('the stream ended early');
}
