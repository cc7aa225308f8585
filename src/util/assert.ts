/** Internal invariants. A failure here is a bug of ours, never the user's doing. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal error: ${message}`);
}

/** For `default` branches and lookups that cannot miss. */
export function unreachable(message: string): never {
  throw new Error(`internal error: ${message}`);
}

/** The value, which cannot be undefined here. */
export function defined<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`internal error: missing ${what}`);
  return value;
}
