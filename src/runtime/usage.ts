/** What a generation cost, from the counters of the executable: measured where it happens, never from the plan. */
import type { Counters } from '../backends/backend.js';

/**
 * Sums over the steps that a sequence took part in. Steps are shared by the sequences of a batch, so the sums of two
 * sequences may count the same kernel call; `tokens` counts those of all sequences of these steps, to divide by.
 */
export interface Usage {
  readonly steps: number;
  readonly tokens: number;
  readonly kernelCalls: number;
  readonly barriers: number;
  readonly bytesRead: number;
  readonly waitNs: number;
}

export const noUsage: Usage = { steps: 0, tokens: 0, kernelCalls: 0, barriers: 0, bytesRead: 0, waitNs: 0 };

/** A copy: the executable may count on in the same object. */
export function readCounters({ kernelCalls, barriers, tokens, bytesRead, waitNs }: Counters): Counters {
  return { kernelCalls, barriers, tokens, bytesRead, waitNs };
}

/** The cost of one step that made `tokens` tokens. */
export function usageBetween(before: Counters, after: Counters, tokens: number): Usage {
  return {
    steps: 1,
    tokens,
    kernelCalls: after.kernelCalls - before.kernelCalls,
    barriers: after.barriers - before.barriers,
    bytesRead: after.bytesRead - before.bytesRead,
    waitNs: after.waitNs - before.waitNs,
  };
}

export function addUsage(a: Usage, b: Usage): Usage {
  return {
    steps: a.steps + b.steps,
    tokens: a.tokens + b.tokens,
    kernelCalls: a.kernelCalls + b.kernelCalls,
    barriers: a.barriers + b.barriers,
    bytesRead: a.bytesRead + b.bytesRead,
    waitNs: a.waitNs + b.waitNs,
  };
}
