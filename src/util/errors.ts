/**
 * The errors a user can meet. Each says in one line what was wrong, where, and what to do; the command line prints
 * exactly that line. Bugs are plain `Error`s (see assert.ts) and keep their stack.
 */
export class KloopError extends Error {
  /** What to do about it, as an imperative; printed after the message. */
  readonly hint: string | undefined;

  constructor(message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(
      options.hint === undefined ? message : `${message}; ${options.hint}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = new.target.name;
    this.hint = options.hint;
  }
}

/** The command line or an API call was used wrongly (exit code 2). */
export class UsageError extends KloopError {}

/** A file of a checkpoint is missing, broken, hostile or does not fit its config. `file` is the path that was read. */
export class CheckpointError extends KloopError {
  constructor(
    readonly file: string,
    message: string,
    options: { hint?: string; cause?: unknown } = {},
  ) {
    super(`${file}: ${message}`, options);
  }
}

/** The model is well formed, but is of a kind that kloop does not compile. */
export class UnsupportedModelError extends KloopError {}

/** A chat template is broken, or ran over its limits. */
export class TemplateError extends KloopError {}

/** The prompt, or prompt and answer, do not fit the context. `limit` counts tokens. */
export class ContextOverflowError extends KloopError {
  constructor(
    readonly limit: number,
    message: string,
    options: { hint?: string } = {},
  ) {
    super(message, options);
  }
}

/** More requests wait than may; the same request can succeed later. */
export class OverloadedError extends KloopError {}

/** No C compiler, or it failed. */
export class ToolchainError extends KloopError {}

/** A download failed for good: not found, not allowed, wrong bytes, or the network gave up. */
export class DownloadError extends KloopError {}

/** A cache or output file could not be written (full disk, no permission). `file` is the path. */
export class StorageError extends KloopError {
  constructor(
    readonly file: string,
    message: string,
    options: { hint?: string; cause?: unknown } = {},
  ) {
    super(`${file}: ${message}`, options);
  }
}

/** The caller's AbortSignal fired. */
export class AbortedError extends KloopError {}

/** Message of anything that was thrown, on one line. */
export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll(/\s*\n\s*/g, ' ');
}
