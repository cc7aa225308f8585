/**
 * Arithmetic on sizes that came from outside. A product that leaves the exact integers (2^53) would silently turn into
 * a wrong size, so it is refused here before anything is allocated or read.
 */

/**
 * Product of non-negative integers, or undefined where a factor is not one or the product is not exact.
 * An empty product is 1 (the element count of a scalar).
 */
export function checkedProduct(factors: readonly number[]): number | undefined {
  let product = 1;
  for (const factor of factors) {
    if (!Number.isSafeInteger(factor) || factor < 0) return undefined;
    product *= factor;
    if (!Number.isSafeInteger(product)) return undefined;
  }
  return product;
}

/** A value of a file for an error message: one line, at most 60 characters, nothing that could upset a terminal. */
export function show(value: unknown): string {
  return plain(startOfJson(value, 60), 60);
}

/**
 * More than the first `limit` characters of a value's JSON, or all of it. It goes no deeper than that, since every level
 * takes a character: values of files can be nested deeper than the stack of JSON.stringify.
 */
function startOfJson(value: unknown, limit: number): string {
  // JSON.stringify escapes most control characters.
  if (typeof value === 'string') return JSON.stringify(value.slice(0, limit + 1));
  // null, a number, true or false; and undefined, for which JSON has no spelling.
  if (typeof value !== 'object' || value === null) return String(value);
  const isArray = Array.isArray(value);
  let text = isArray ? '[' : '{';
  for (const [key, item] of isArray ? value.entries() : Object.entries(value)) {
    if (text.length > limit) return text;
    if (text.length > 1) text += ',';
    if (!isArray) text += `${startOfJson(String(key), limit)}:`;
    text += startOfJson(item, Math.max(0, limit - text.length));
  }
  return text + (isArray ? ']' : '}');
}

/** Text from outside for an error message: control characters and line ends become `?`, the rest is cut at `limit`. */
export function plain(text: string, limit: number): string {
  const line = text.slice(0, limit + 1).replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]/gu, '?');
  return line.length <= limit ? line : `${line.slice(0, limit - 3)}...`;
}
