/**
 * How likely the model held a token, and what it held more likely: natural logarithms of the softmax of its logits, before
 * temperature, penalties and everything else that shapes the choice.
 */

export interface Likelihood {
  readonly token: number;
  readonly logprob: number;
}

export interface TokenLogprob extends Likelihood {
  /** The most likely tokens at this place, best first. */
  readonly top: readonly Likelihood[];
}

export interface LogprobOptions {
  /** How many of the most likely tokens to tell. */
  readonly top: number;
  /** Also for the tokens of the prompt, which are all computed then. */
  readonly prompt?: boolean;
}

/** Of `token`, by the logits of its place. Costs one walk over the vocabulary. */
export function tokenLogprob(logits: Float32Array, token: number, top: number): TokenLogprob {
  const best: Likelihood[] = [];
  let max = -Infinity;
  for (const [id, logit] of logits.entries()) {
    if (Number.isNaN(logit)) continue;
    if (logit > max) max = logit;
    const worst = best.at(-1);
    if (best.length === top && (worst === undefined || logit <= worst.logprob)) continue;
    // The first of equals stays first.
    let at = best.length;
    while (at > 0 && best[at - 1]!.logprob < logit) at--;
    best.splice(at, 0, { token: id, logprob: logit });
    if (best.length > top) best.pop();
  }
  let sum = 0;
  for (const logit of logits) if (!Number.isNaN(logit)) sum += Math.exp(logit - max);
  const logSum = Math.log(sum);
  const of = (logit: number): number => (Number.isNaN(logit) ? -Infinity : logit - max - logSum);
  return {
    token,
    logprob: of(logits[token] ?? NaN),
    top: best.map(({ token: id, logprob }) => ({ token: id, logprob: of(logprob) })),
  };
}
