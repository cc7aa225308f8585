/** The texts of a request in the making: started together, followed as one stream of events, and measured. */
import type { Generation, GenerationResult, Piece } from '../runtime/generation.js';
import { ToolCallStream, type ToolPiece } from '../text/tool-call-stream.js';
import type { ToolCall } from '../text/tool-formats.js';
import { AbortedError } from '../util/errors.js';
import type { RequestScope } from './request-scope.js';
import type { ServerMetrics } from './metrics.js';
import type { TextRequest } from './text-request.js';

/** `choice` counts the texts of all prompts, those of the first prompt first. */
export type TextEvent =
  | { readonly kind: 'piece'; readonly choice: number; readonly piece: Piece; readonly calls: readonly ToolCall[] }
  | { readonly kind: 'end'; readonly choice: number; readonly result: GenerationResult; readonly reason: FinishReason };

/** As the API names them. */
export type FinishReason = 'stop' | 'length' | 'tool_calls';

export interface Text {
  readonly result: GenerationResult;
  readonly reason: FinishReason;
  /** Where the answer may call tools: what it says besides, and the calls. */
  readonly parts?: ToolPiece;
}

export class Texts {
  readonly #request: TextRequest;
  readonly #scope: RequestScope;
  readonly #observers: readonly TextObserver[];
  readonly #generations: readonly Generation[];

  /** Starts or queues all texts. Throws OverloadedError where the queue is full; then nothing was started. */
  constructor(request: TextRequest, scope: RequestScope, metrics: ServerMetrics) {
    this.#request = request;
    this.#scope = scope;
    const jobs = request.prompts.flatMap((prompt) => request.options.map((options) => ({ prompt, options })));
    const observers = jobs.map(() => new TextObserver(request.served.id, metrics));
    this.#observers = observers;
    this.#generations = request.served.pool.generate(
      jobs.map(({ prompt, options }, i) => ({
        prompt,
        options: { ...options, signal: scope.signal },
        onStart: () => observers[i]!.started(),
      })),
    );
  }

  /** What happens, as it happens; to leave early ends all texts. The first failure ends all and is thrown. */
  async *events(): AsyncGenerator<TextEvent, void, undefined> {
    const events: TextEvent[] = [];
    const failures: unknown[] = [];
    let wake = (): void => undefined;
    let open = this.#generations.length;
    for (const choice of this.#generations.keys()) {
      const give = (event: TextEvent): void => {
        events.push(event);
        wake();
      };
      void this.#follow(choice, give)
        .catch((error: unknown) => failures.push(error))
        .finally(() => {
          open--;
          wake();
        });
    }
    try {
      for (;;) {
        if (failures.length > 0) throw failures[0];
        const event = events.shift();
        if (event !== undefined) yield event;
        else if (open === 0) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      for (const generation of this.#generations) generation.abort();
    }
  }

  /** All texts, when they are complete. */
  async all(): Promise<readonly Text[]> {
    const texts: Text[] = [];
    const parts = this.#generations.map(() => ({ text: '', calls: [] as ToolCall[] }));
    for await (const event of this.events()) {
      const own = parts[event.choice]!;
      if (event.kind === 'end') {
        texts[event.choice] = this.#request.toolUse === undefined ? event : { ...event, parts: own };
      } else {
        own.text += event.piece.text;
        own.calls.push(...event.calls);
      }
    }
    return texts;
  }

  async #follow(choice: number, give: (event: TextEvent) => void): Promise<void> {
    const observer = this.#observers[choice]!;
    try {
      const generation = this.#generations[choice]!;
      const { toolUse } = this.#request;
      const stream = toolUse === undefined ? undefined : new ToolCallStream(toolUse.format, toolUse.names);
      let calls = 0;
      const giveTools = (piece: Piece, made: ToolPiece): void => {
        calls += made.calls.length;
        give({ kind: 'piece', choice, piece: { ...piece, text: made.text }, calls: made.calls });
      };
      for await (const piece of generation) {
        observer.made(piece.tokens.length);
        if (stream === undefined) give({ kind: 'piece', choice, piece, calls: [] });
        else giveTools(piece, stream.push(piece.text));
      }
      const result = await generation.result;
      if (stream !== undefined) giveTools({ text: '', tokens: [] }, stream.end());
      const ended = this.#finishReason(result);
      const reason = ended === 'stop' && calls > 0 ? 'tool_calls' : ended;
      this.#request.served.recordText(observer.seconds);
      observer.ended(result, reason);
      give({ kind: 'end', choice, result, reason });
    } catch (error) {
      observer.failed(this.#scope.reason ?? 'error');
      throw this.#scope.reason === undefined ? error : this.#scope.signal.reason;
    }
  }

  #finishReason({ finishReason }: GenerationResult): FinishReason {
    if (finishReason !== 'abort') return finishReason;
    // The time of a request is a limit like that of its tokens.
    if (this.#scope.reason === 'deadline') return 'length';
    throw this.#scope.signal.reason ?? new AbortedError('stopped');
  }
}

/** The times of one text, from its request to its end. */
class TextObserver {
  readonly #arrivedMs = performance.now();
  #startedMs = this.#arrivedMs;
  #lastMs: number | undefined;

  constructor(
    private readonly model: string,
    private readonly metrics: ServerMetrics,
  ) {}

  /** Since it got its slot. */
  get seconds(): number {
    return (performance.now() - this.#startedMs) / 1000;
  }

  started(): void {
    this.#startedMs = performance.now();
    this.metrics.started(this.model, (this.#startedMs - this.#arrivedMs) / 1000);
  }

  made(tokens: number): void {
    if (tokens === 0) return;
    const nowMs = performance.now();
    if (this.#lastMs === undefined) this.metrics.firstTokens(this.model, tokens, (nowMs - this.#arrivedMs) / 1000);
    else this.metrics.moreTokens(this.model, tokens, (nowMs - this.#lastMs) / 1000);
    this.#lastMs = nowMs;
  }

  ended({ promptTokens, cachedTokens }: GenerationResult, reason: string): void {
    const seconds = (performance.now() - this.#arrivedMs) / 1000;
    this.metrics.ended(this.model, { reason, prompt: promptTokens.length, cached: cachedTokens, seconds });
  }

  failed(reason: string): void {
    this.metrics.failed(this.model, reason);
  }
}
