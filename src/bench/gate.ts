/**
 * The numerical gate before timing on a device that rounds in its own way: what it says of the tokens of a text, against
 * float32 arithmetic of the cpu backend on the same weights. A result whose gate failed is no result.
 */
import type { Identity } from './workload.js';

/**
 * Largest mean of the KL divergence, in nats, and of how much less likely the text becomes. The order of sums, and
 * reductions in bf16, are expected to move them by far less; a wrong row, head or layer by far more.
 */
export const gateLimits: GateLimits = { meanKl: 1e-4, nllShift: 1e-3 };

export interface GateLimits {
  readonly meanKl: number;
  readonly nllShift: number;
}

/**
 * For peers that round every activation to the format of the weights. PyTorch in bf16 is off by 2e-4 and 2e-3 at the
 * shapes of 135M and 360M parameters.
 */
export const peerGateLimits: GateLimits = { meanKl: 2e-3, nllShift: 2e-2 };

/** Tokens of the text. */
export const gateTokens = 16;

export interface TextLogits {
  readonly text: readonly number[];
  /** Behind each token, again and again where the text was computed in several ways. */
  readonly logits: readonly Float32Array[];
}

export interface Gate {
  readonly gate: 'passed' | 'failed';
  readonly meanKl: number;
  readonly nllShift: number;
}

/** Of a variant. */
export interface GateResult extends Gate {
  readonly identity: Identity;
}

/** Logits behind every token of a text, against those of float32 arithmetic. The token after the last one is the first. */
export function gateOf(
  { text, logits }: TextLogits,
  expected: Pick<TextLogits, 'logits'>,
  limits: GateLimits = gateLimits,
): Gate {
  const rows = logits.map((row, i) => ({
    ours: logSoftmax(row),
    theirs: logSoftmax(expected.logits[i] ?? new Float32Array(row.length).fill(NaN)),
    next: text[(i + 1) % text.length]!,
  }));
  const mean = (of: (row: (typeof rows)[number]) => number): number =>
    rows.reduce((sum, row) => sum + of(row), 0) / rows.length;
  const meanKl = mean(({ ours, theirs }) => theirs.reduce((sum, p, id) => sum + Math.exp(p) * (p - ours[id]!), 0));
  const nllShift = mean(({ ours, next }) => -ours[next]!) - mean(({ theirs, next }) => -theirs[next]!);
  // Whatever is not a number fails.
  const passed = Math.abs(meanKl) < limits.meanKl && Math.abs(nllShift) < limits.nllShift;
  return { gate: passed ? 'passed' : 'failed', meanKl, nllShift };
}

export interface LogitsSource {
  logits(prompt: readonly number[]): Promise<Float32Array>;
}

/** Logits behind every token of a text. */
export async function logitsBehind(source: LogitsSource, text: readonly number[]): Promise<TextLogits> {
  const logits: Float32Array[] = [];
  for (let length = 1; length <= text.length; length++) logits.push(await source.logits(text.slice(0, length)));
  return { text, logits };
}

function logSoftmax(logits: Float32Array): Float64Array {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
  return Float64Array.from(logits, (logit) => logit - max - total);
}
