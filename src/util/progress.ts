/**
 * Progress of long work on a stream for people. On a terminal one line is drawn again and again, at most 20 times a
 * second; elsewhere a phase is one plain line at its start and one at its end. Work that ends quickly shows nothing.
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
const barWidth = 24;

export class ProgressBar {
  readonly #stream: ProgressStream;
  readonly #delayMs: number;
  readonly #now: () => number;
  #label: string | undefined;
  #startedMs = 0;
  #drawnMs = -Infinity;
  #shown = false;

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
    if (elapsedMs < this.#delayMs || (complete && !this.#shown)) return;
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
    if (this.#shown) {
      const took = formatDuration(this.#now() - this.#startedMs);
      this.#stream.write(this.#stream.isTTY === true ? '\r\u001b[K' : `${this.#label ?? ''}: done in ${took}\n`);
    }
    this.#label = undefined;
    this.#shown = false;
  }

  #draw(label: string, done: number, total: number, unit: 'bytes' | 'steps', elapsedMs: number): void {
    const amount = (value: number): string => (unit === 'bytes' ? formatBytes(value) : String(value));
    const parts = [label];
    if (total > 0) {
      const part = Math.min(1, done / total);
      const filled = Math.round(part * barWidth);
      parts.push(`[${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}]`, `${Math.floor(part * 100)}%`);
      parts.push(`${amount(done)} of ${amount(total)}`);
    } else {
      parts.push(amount(done));
    }
    if (unit === 'bytes' && elapsedMs > 0) parts.push(`${formatBytes(Math.round((done / elapsedMs) * 1000))}/s`);
    const columns = this.#stream.columns ?? 80;
    this.#stream.write(`\r${parts.join(' ').slice(0, Math.max(1, columns - 1))}\u001b[K`);
  }
}
