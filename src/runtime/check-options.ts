/** For callers whose types were not checked: what a wrong value is called, so that the error says it. */
import { inspect } from 'node:util';
import { plain } from '../util/checked.js';
import { UsageError } from '../util/errors.js';

/** Throws UsageError for what is no object. */
function requireOptions(options: unknown): void {
  if (isObject(options)) return;
  throw new UsageError(`the options are ${shown(options)}, must be an object`, { hint: 'leave them out for none' });
}

/** What an option must be. */
export interface Rule {
  readonly holds: (value: unknown) => boolean;
  readonly must: string;
}

export const flag: Rule = { holds: (value) => typeof value === 'boolean', must: 'be true or false' };
export const isSignal: Rule = { holds: (value) => value instanceof AbortSignal, must: 'be an AbortSignal' };

export function oneOf(names: readonly string[]): Rule {
  return { holds: (value) => names.includes(value as string), must: `be one of ${names.join(', ')}` };
}

/** Throws UsageError for what is no object, and for the first option that is not what it must be; absent ones are left out. */
export function checkOptions<Name extends string>(
  options: { readonly [name in Name]?: unknown },
  rules: Readonly<Record<Name, Rule>>,
): void {
  requireOptions(options);
  for (const name of Object.keys(rules) as Name[]) {
    const value = options[name];
    if (value === undefined || rules[name].holds(value)) continue;
    throw new UsageError(`${name} is ${shown(value)}, must ${rules[name].must}`);
  }
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
