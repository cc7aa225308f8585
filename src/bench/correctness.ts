/**
 * What comes before any timing: all variants make the same tokens, and the peer, which rounds otherwise, agrees with them
 * or nearly so. A variant that computes something else is not slower or faster, it is wrong.
 */
import type { Formats } from '../runtime/formats.js';
import { KloopError } from '../util/errors.js';
import { significant } from '../util/units.js';
import type { Peer, PeerInfo } from './peer.js';
import type { Transcript, Variant } from './variant.js';
import { engineTitles, identityName } from './workload.js';

/** What was made, by whom. */
export interface Claim {
  readonly identity: Variant['identity'];
  readonly transcript: Transcript;
}

const bugHint = 'this is a bug of kloop, please report it with the command line';

/**
 * Throws KloopError unless all tokens are equal, and the logits of variants with equally many threads equal bit for bit.
 * More threads may add up in another order, so that between them only tokens are compared.
 */
export function requireEqual(claims: readonly Claim[]): void {
  const [first] = claims;
  for (const claim of claims) {
    if (first === undefined) return;
    const differing = firstDifference(first.transcript.tokens, claim.transcript.tokens);
    if (differing >= 0) {
      const names = `${identityName(first.identity)} and ${identityName(claim.identity)}`;
      throw new KloopError(`${names} make different tokens, first at token ${differing}`, { hint: bugHint });
    }
    const sameThreads = claims.find(({ identity }) => identity.threads === claim.identity.threads) ?? claim;
    requireEqualLogits(sameThreads, claim);
  }
}

function requireEqualLogits(a: Claim, b: Claim): void {
  const [left, right] = [bitsOf(a.transcript.logits), bitsOf(b.transcript.logits)];
  const differing = firstDifference(left, right);
  if (differing < 0) return;
  const count = left.reduce((sum, bits, i) => sum + (bits === right[i] ? 0 : 1), 0);
  const values = [a, b].map(({ transcript }) => transcript.logits[differing]);
  throw new KloopError(
    `${identityName(a.identity)} and ${identityName(b.identity)} make the same tokens from logits that are not equal bit ` +
      `for bit: ${count} of ${left.length} differ, first number ${differing} (${values.join(' and ')})`,
    { hint: bugHint },
  );
}

function bitsOf({ buffer, byteOffset, length }: Float32Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, length);
}

/** Index of the first element that is not the same in both, or -1. */
function firstDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

/** How far ours and the peer's results are apart. */
export interface PeerAgreement {
  readonly peer: PeerInfo;
  /** Greedy tokens that were compared, and how many of them are equal before the first that is not. */
  readonly tokens: number;
  readonly equalTokens: number;
  /** Largest difference of two logits after the tokens in common, as a part of the range of ours. */
  readonly logitDifference: number;
  /** What it may be where tokens differ. */
  readonly tolerance: number;
}

/** Formats of weights and of the KV cache. */
type Narrowing = Pick<Formats, 'quant' | 'kv'>;

/** Formats narrower than f32 round activations or their products, each engine in its own way. */
function toleranceOf({ quant, kv }: Narrowing): number {
  return quant === 'f32' && kv !== 'q8_0' ? 2e-3 : 3e-2;
}

/**
 * Compares with the peer's greedy continuation of the same prompt.
 * @throws KloopError where tokens differ although the logits are too far apart for a near tie
 */
export async function compareWithPeer(
  variant: Variant,
  peer: Peer,
  prompt: readonly number[],
  { tokens }: Transcript,
  formats: Narrowing,
): Promise<PeerAgreement> {
  const theirs = await peer.greedy(prompt, tokens.length);
  const differing = firstDifference(tokens, theirs.tokens);
  const equalTokens = differing < 0 ? tokens.length : differing;
  // The last of our tokens has not been fed, and need not be.
  const common = [...prompt, ...tokens.slice(0, Math.min(equalTokens, tokens.length - 1))];
  const logitDifference = relativeDifference(await variant.logits(common), await peer.logits(common));
  const agreement = {
    peer: peer.info,
    tokens: tokens.length,
    equalTokens,
    logitDifference,
    tolerance: toleranceOf(formats),
  };
  if (equalTokens === tokens.length || logitDifference <= agreement.tolerance) return agreement;
  throw new KloopError(
    `${engineTitles[peer.info.kind.engine]} makes another token at ${equalTokens} of ${tokens.length}, and its logits differ by ` +
      `${significant(logitDifference)} of their range, ${significant(agreement.tolerance)} is allowed for ${formats.quant} weights`,
    { hint: 'one of the two is wrong about this model; compare `kloop run` on the reference backend' },
  );
}

/** Largest |a - b|, as a part of max(a) - min(a). NaN where there is one. */
export function relativeDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let [largest, min, max] = [0, Infinity, -Infinity];
  for (let i = 0; i < a.length; i++) {
    largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
    min = Math.min(min, a[i]!);
    max = Math.max(max, a[i]!);
  }
  return largest / (max - min);
}
