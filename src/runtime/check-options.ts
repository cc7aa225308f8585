/** For callers whose types were not checked: what a wrong value is called, so that the error says it. */
import { inspect } from 'node:util';
import { plain } from '../util/checked.js';
import { UsageError } from '../util/errors.js';

/** Throws UsageError for what is no object. */
export function requireOptions(options: unknown): void {
  if (isObject(options)) return;
  throw new UsageError(`the options are ${shown(options)}, must be an object`, { hint: 'leave them out for none' });
}

/** Any value for an error message, on one line. */
export function shown(value: unknown): string {
  return plain(inspect(value, { depth: 1, breakLength: Infinity }), 60);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** `null` and `'0.5'` compare like numbers, and are none. */
export function isNumber(value: unknown): value is number {
  return typeof value === 'number';
}
