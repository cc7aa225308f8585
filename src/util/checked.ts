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
  // JSON.stringify escapes most control characters, and gives undefined for what JSON has no spelling for.
  const text =
    typeof value === 'number' ? String(value) : ((JSON.stringify(value) as string | undefined) ?? String(value));
  return plain(text, 60);
}

/** Text from outside for an error message: control characters and line ends become `?`, the rest is cut at `limit`. */
export function plain(text: string, limit: number): string {
  const line = text.slice(0, limit + 1).replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]/gu, '?');
  return line.length <= limit ? line : `${line.slice(0, limit - 3)}...`;
}
