/**
 * Runs a synchronous task with a time limit, on this thread. Regular expressions and templates come out of model files,
 * so they may backtrack or loop for ever; V8 can terminate both, and node:vm is the documented way to ask for it.
 */
import { createContext, Script, type Context } from 'node:vm';

/** The task ran longer than `limitMs` milliseconds and was terminated. */
export class TimeLimitError extends Error {
  constructor(readonly limitMs: number) {
    super(`took longer than ${limitMs / 1000} s`);
    this.name = 'TimeLimitError';
  }
}

/** A reusable time limiter; one call costs about 0.1 ms. Not reentrant with itself. */
export class TimeLimit {
  readonly #globals: { task: () => void } = { task: () => undefined };
  readonly #context: Context = createContext(this.#globals);
  readonly #script = new Script('task()');

  /** The value of `task()`. Throws TimeLimitError when it takes longer than `limitMs`, otherwise what the task throws. */
  run<T>(limitMs: number, task: () => T): T {
    const results: T[] = [];
    this.#globals.task = () => void results.push(task());
    try {
      this.#script.runInContext(this.#context, { timeout: limitMs });
    } catch (error) {
      if (isTimeout(error)) throw new TimeLimitError(limitMs);
      throw error;
    } finally {
      this.#globals.task = () => undefined;
    }
    return results[0] as T;
  }
}

function isTimeout(error: unknown): boolean {
  // The error belongs to the other context, so it is no instance of this one's Error.
  return (
    typeof error === 'object' && error !== null && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT'
  );
}
