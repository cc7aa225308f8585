/**
 * How many tokens one call may make. Text has to appear as it is made, and a stop has to be quick, so a call should take
 * about as long as a person does not notice; within that, the longer the fewer calls.
 */

const targetMs = 30;
const maxSteps = 32;

export class StepSize {
  /** Smoothed milliseconds per token step; undefined before the first measurement. */
  #stepMs: number | undefined;

  /** Token steps for the next call: 1 until a call has been measured. */
  next(): number {
    if (this.#stepMs === undefined) return 1;
    return Math.max(1, Math.min(maxSteps, Math.floor(targetMs / Math.max(this.#stepMs, 1e-6))));
  }

  /** A call made `steps` token steps in `ms`. */
  record(steps: number, ms: number): void {
    if (steps < 1) return;
    const measured = ms / steps;
    this.#stepMs = this.#stepMs === undefined ? measured : (this.#stepMs + measured) / 2;
  }
}
