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
  // JSON.stringify escapes control characters, and gives undefined for what JSON has no spelling for.
  const text =
    typeof value === 'number' ? String(value) : ((JSON.stringify(value) as string | undefined) ?? String(value));
  const plain = text.replaceAll(/[\u007f-\u009f\u2028\u2029]/g, '?');
  return plain.length <= 60 ? plain : `${plain.slice(0, 57)}...`;
}
