/**
 * Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the
 * numbers are a pure function of counter and key, so that a token's luck depends on its seed and position and nothing else.
 */

export type Words4 = readonly [number, number, number, number];

/** Ten rounds. Counter, key and result are unsigned 32-bit words. */
export function philox4x32(counter: Words4, key: readonly [number, number]): Words4 {
  let [a, b, c, d] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const highA = multiplyHigh(a, 0xd2511f53);
    const highC = multiplyHigh(c, 0xcd9e8d57);
    const lowA = Math.imul(a, 0xd2511f53);
    const lowC = Math.imul(c, 0xcd9e8d57);
    [a, b, c, d] = [(highC ^ b ^ k0) >>> 0, lowC >>> 0, (highA ^ d ^ k1) >>> 0, lowA >>> 0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [a, b, c, d];
}

/** Uniform in [0, 1) with 32 random bits: the first word of the block at `counter`. */
export function uniform(counter: number, key: readonly [number, number]): number {
  return philox4x32([counter >>> 0, 0, 0, 0], [key[0] >>> 0, key[1] >>> 0])[0] / 2 ** 32;
}

/** The upper 32 bits of a product of unsigned 32-bit words. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  // Neither sum reaches 2^53, so that both are exact.
  const middle = aHigh * bLow + Math.floor((aLow * bLow) / 0x10000);
  const carry = Math.floor((aLow * bHigh + (middle % 0x10000)) / 0x10000);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + carry) >>> 0;
}
