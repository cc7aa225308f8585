import { z } from 'zod';

/** What the settings of sampling may be, whether a checkpoint suggests them or a caller asks for them. Both ends belong. */
export interface Range {
  readonly min: number;
  readonly max: number;
  /** Whole numbers only. */
  readonly integer?: true;
}

/** Numbers of a file or a request that lie in it. */
export function numberWithin({ min, max, integer }: Range) {
  return (integer === true ? z.int() : z.number()).min(min).max(max);
}

/** Temperature 0 is greedy; 0 for topK and minP, 1 for topP and repetitionPenalty is off. */
export const samplingRanges = {
  temperature: { min: 0, max: 1000 },
  topK: { min: 0, max: 2 ** 31 - 1, integer: true },
  topP: { min: 0, max: 1 },
  minP: { min: 0, max: 1 },
  repetitionPenalty: { min: 0.001, max: 1000 },
} as const satisfies Readonly<Record<string, Range>>;
