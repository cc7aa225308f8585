/** Shorthand for machine files: a number with unit, basis and source, in the order in which one reads it aloud. */
import type { Basis, Quantity } from '../machine.js';

export function q<U extends string>(value: number, unit: U, basis: Basis, source: string): Quantity<U> {
  return { value, unit, basis, source };
}

/** KL24: arXiv 2410.23668. DF26: "Dataflow Is All You Need", MLSys 2026. SN40L: arXiv 2405.07518. HC24: Hot Chips 2024. */
export const sources = {
  sn40l: 'SN40L, arXiv 2405.07518',
  df26: 'DF26, MLSys 2026',
  h100: 'NVIDIA H100 data sheet (SXM5)',
  h200: 'NVIDIA H200 data sheet (SXM)',
  fit: 'scripts/fit-machines.mjs, from the calibration figures alone',
} as const;
