/** The server as this page sees it: the OpenAI API, and the routes that show what kernels do. */

export interface Counters {
  readonly kernel_calls: number;
  readonly barriers: number;
  readonly bytes_read: number;
  readonly wait_ns: number;
  readonly tokens: number;
}

/** Microseconds of a kernel call: before its work, its work, after it. */
export type CallTimes = readonly [launch: number, body: number, sync: number];

export interface ScheduleTimes {
  readonly schedule: string;
  readonly calls_per_token: number;
  readonly token_us: number;
  readonly tokens_per_second: number;
  readonly bytes_per_token: number;
  readonly bandwidth_fraction: number;
  readonly calls: readonly CallTimes[];
}

export interface MachineTimes {
  readonly name: string;
  readonly title: string;
  readonly sockets: number;
  readonly schedules: readonly ScheduleTimes[];
}

export interface Inspection {
  readonly model: string;
  readonly backend: string;
  readonly quant: string;
  readonly schedule: string;
  readonly threads: number;
  readonly layers: number;
  readonly context: number;
  /** Has a chat template; otherwise it continues texts. */
  readonly chat: boolean;
  readonly read_bandwidth: number | null;
  readonly machines: readonly MachineTimes[];
}

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** A key stays in memory only: it is gone with the page. */
let key = '';

export function useKey(given: string): void {
  key = given;
}

function headers(): Record<string, string> {
  return { 'content-type': 'application/json', ...(key === '' ? {} : { authorization: `Bearer ${key}` }) };
}

async function failureOf(response: Response): Promise<ApiError> {
  let message = `the server answers with status ${response.status}`;
  try {
    const { error } = (await response.json()) as { error?: { message?: string } };
    message = error?.message ?? message;
  } catch {
    // Not ours; the status has to do.
  }
  return new ApiError(message, response.status);
}

async function get<T>(path: string): Promise<T> {
  const response = await fetch(path, { headers: headers() });
  if (!response.ok) throw await failureOf(response);
  return (await response.json()) as T;
}

export async function listModels(): Promise<string[]> {
  const { data } = await get<{ data: readonly { id: string }[] }>('/v1/models');
  return data.map(({ id }) => id);
}

export function inspect(model: string): Promise<Inspection> {
  return get<Inspection>(`/inspect/${encodeURIComponent(model)}`);
}

export function counters(model: string): Promise<Counters> {
  return get<Counters>(`/inspect/${encodeURIComponent(model)}/counters`);
}

interface Piece {
  readonly choices?: readonly {
    readonly text?: string;
    readonly delta?: { readonly content?: string };
    readonly finish_reason?: string | null;
  }[];
  readonly error?: { readonly message: string };
}

export interface TextEvent {
  readonly text: string;
  readonly finish: string | null;
}

/** Streams an answer. Throws ApiError, and what `fetch` throws when `signal` ends it. */
export async function* stream(path: string, body: object, signal: AbortSignal): AsyncGenerator<TextEvent> {
  const init = { method: 'POST', headers: headers(), body: JSON.stringify({ ...body, stream: true }), signal };
  const response = await fetch(path, init);
  if (!response.ok || response.body === null) throw await failureOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError('the stream ended early', 0);
    const events = (pending + value).split('\n\n');
    pending = events.pop() ?? '';
    for (const event of events) {
      if (!event.startsWith('data:')) continue;
      const data = event.slice(5).trim();
      if (data === '[DONE]') return;
      const { choices, error } = JSON.parse(data) as Piece;
      if (error !== undefined) throw new ApiError(error.message, 0);
      const choice = choices?.[0];
      if (choice === undefined) continue;
      yield { text: choice.text ?? choice.delta?.content ?? '', finish: choice.finish_reason ?? null };
    }
  }
}
