/**
 * Server-sent events with back pressure: the next event is asked for when the client has taken the last one. A client
 * that does not read is cut off after a while, since its answer would be kept for ever.
 */

export interface EventStreamOptions {
  readonly stallMs: number;
  /** The client has not read for `stallMs`. */
  readonly onStall: () => void;
  /** The client is gone. */
  readonly onCancel: () => void;
}

/** The events as the body of a response. `events` must not throw. */
export function eventStream(
  events: AsyncIterable<string>,
  { stallMs, onStall, onCancel }: EventStreamOptions,
): ReadableStream<Uint8Array> {
  const iterator = events[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  let stall: NodeJS.Timeout | undefined;
  let cancelled = false;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        clearTimeout(stall);
        const next = await iterator.next();
        if (cancelled) return;
        if (next.done === true) {
          controller.close();
          return;
        }
        controller.enqueue(encoder.encode(next.value));
        stall = setTimeout(onStall, stallMs);
      },
      async cancel() {
        cancelled = true;
        clearTimeout(stall);
        onCancel();
        await iterator.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

export function dataEvent(data: object | '[DONE]'): string {
  // JSON has no line breaks outside of strings, and none inside of them.
  return `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
}
