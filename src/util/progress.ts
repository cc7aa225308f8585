/**
 * Progress of long work on a stream for people. On a terminal one line is drawn again and again, at most 20 times a
 * second; elsewhere a phase is one plain line at its start and one at its end. Work that ends quickly shows nothing; work that
 * takes longer is shown also where nobody tells of it again.
 */
import { formatBytes, formatDuration } from './units.js';

/** What is drawn on: stderr, or a fake in tests. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export interface ProgressBarOptions {
  readonly stream: ProgressStream;
  /** Milliseconds of work after which the first line appears. Default 300. */
  readonly delayMs?: number;
  /** Clock in milliseconds. */
  readonly now?: () => number;
}

const redrawMs = 50;
const mostBarWidth = 24;
const leastBarWidth = 8;

export class ProgressBar {
  readonly #stream: ProgressStream;
  readonly #delayMs: number;
  readonly #now: () => number;
  #label: string | undefined;
  #startedMs = 0;
  #drawnMs = -Infinity;
  #shown = false;
  #waiting: NodeJS.Timeout | undefined;

  constructor({ stream, delayMs = 300, now = () => performance.now() }: ProgressBarOptions) {
    this.#stream = stream;
    this.#delayMs = delayMs;
    this.#now = now;
  }

  /** `done` of `total` (0: not known) of the phase `label`; another label ends the phase before. */
  update(label: string, done: number, total: number, unit: 'bytes' | 'steps'): void {
    const now = this.#now();
    if (label !== this.#label) {
      this.end();
      this.#label = label;
      this.#startedMs = now;
      this.#drawnMs = -Infinity;
    }
    const elapsedMs = now - this.#startedMs;
    const complete = total > 0 && done >= total;
    clearTimeout(this.#waiting);
    if (complete && !this.#shown) return;
    if (elapsedMs < this.#delayMs) {
      const again = (): void => this.update(label, done, total, unit);
      this.#waiting = setTimeout(again, Math.ceil(this.#delayMs - elapsedMs) + 1).unref();
      return;
    }
    if (this.#stream.isTTY === true) {
      if (now - this.#drawnMs < redrawMs && !complete) return;
      this.#drawnMs = now;
      this.#draw(label, done, total, unit, elapsedMs);
    } else if (!this.#shown) {
      this.#stream.write(`${label} ...\n`);
    }
    this.#shown = true;
  }

  /** Ends the phase: the line of a terminal is wiped, elsewhere the time taken is written. */
  end(): void {
    this.#end('done in');
  }

  /** Ends the phase before its work is done; nothing where there is none. */
  stop(): void {
    this.#end('stopped after');
  }

  #end(how: string): void {
    clearTimeout(this.#waiting);
    if (this.#shown) {
      const took = formatDuration(this.#now() - this.#startedMs);
      this.#stream.write(this.#stream.isTTY === true ? '\r\u001b[K' : `${this.#label ?? ''}: ${how} ${took}\n`);
    }
    this.#label = undefined;
    this.#shown = false;
  }

  #draw(label: string, done: number, total: number, unit: 'bytes' | 'steps', elapsedMs: number): void {
    const amount = (value: number): string => (unit === 'bytes' ? formatBytes(value) : String(value));
    // Terminals that were told no size say 0.
    const { columns = 0 } = this.#stream;
    const room = Math.max(1, (columns > 0 ? columns : 80) - 1);
    const part = total > 0 ? Math.min(1, done / total) : 0;
    const parts =
      total > 0
        ? [`${Math.floor(part * 100)}%`, `${amount(done)} of ${amount(total)}`]
        : [done > 0 ? amount(done) : '...'];
    const lengthWith = (...more: string[]): number => [label, ...parts, ...more].join(' ').length;
    // Where the terminal is narrow, first the bar becomes shorter, then it is left out, and then the rate.
    const rate = `${formatBytes(Math.round((done / elapsedMs) * 1000))}/s`;
    if (unit === 'bytes' && elapsedMs > 0 && lengthWith(rate) <= room) parts.push(rate);
    const width = Math.min(mostBarWidth, room - lengthWith('[]'));
    const filled = Math.round(part * width);
    if (total > 0 && width >= leastBarWidth) {
      parts.unshift(`[${'#'.repeat(filled)}${'.'.repeat(width - filled)}]`);
    }
    this.#stream.write(`\r${[label, ...parts].join(' ').slice(0, room)}\u001b[K`);
  }
}
