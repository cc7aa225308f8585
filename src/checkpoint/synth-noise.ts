/**
 * Random weights faster than the disk takes them: one pool of a million gaussian values is made per spread, and
 * tensors are stretches of it from offsets that depend on seed, tensor name and position. Deterministic: the same
 * seed and name give the same bytes.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { encodeWeights } from './encode.js';
import type { WeightDtype } from './weights.js';
import { dtypeBytes } from './weights.js';

const poolElements = 1 << 20;

/** Mean and standard deviation of a tensor's values. */
export interface Spread {
  readonly mean: number;
  readonly std: number;
}

export interface Noise {
  /** The tensor's bytes in pieces of at most 4 MiB; a piece is only good until it has been written. */
  pieces(name: string, elements: number, spread: Spread): Iterable<Uint8Array>;
}

/** Values are rounded to `dtype`. */
export function createNoise(seed: string, dtype: WeightDtype): Noise {
  const unit = gaussians(seed);
  const pools = new Map<string, Uint8Array>();
  const poolOf = ({ mean, std }: Spread): Uint8Array => {
    const key = `${mean} ${std}`;
    const pool =
      pools.get(key) ??
      encode(
        unit.map((value) => mean + std * value),
        dtype,
      );
    pools.set(key, pool);
    return pool;
  };
  return {
    *pieces(name, elements, spread) {
      const pool = poolOf(spread);
      const size = dtypeBytes(dtype);
      for (let done = 0; done < elements; done += poolElements) {
        const start = hash32(`${seed}\n${name}\n${done}`) % poolElements;
        const count = Math.min(poolElements, elements - done);
        // The pool stands twice in a row, so that a stretch may begin anywhere.
        yield pool.subarray(start * size, (start + count) * size);
      }
    },
  };
}

function encode(values: Float32Array, dtype: WeightDtype): Uint8Array {
  const bytes = encodeWeights(values, dtype);
  const twice = new Uint8Array(2 * bytes.length);
  twice.set(bytes);
  twice.set(bytes, bytes.length);
  return twice;
}

/** Standard normal values by Box and Muller, from an AES key stream: the same on every machine. */
function gaussians(seed: string): Float32Array {
  const key = createHash('sha256').update(`kloop synth ${seed}`).digest().subarray(0, 16);
  const stream = createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(4 * poolElements));
  const values = new Float32Array(poolElements);
  for (let i = 0; i < poolElements; i += 2) {
    // In (0, 1]: the logarithm of zero is not finite.
    const radius = Math.sqrt(-2 * Math.log((stream.readUInt32LE(4 * i) + 1) / 2 ** 32));
    const angle = (2 * Math.PI * stream.readUInt32LE(4 * i + 4)) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

function hash32(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32LE();
}
