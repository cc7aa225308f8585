/**
 * The cpu backend as most tests take it: hardly optimized, which compiles in a third of the time. No contraction and no fast
 * mathematics means that optimization changes no result. mixed-formats.test.ts holds that against what users run, bit for
 * bit; the conformance suite and the tests of single kernels, but for matrices in plain C, run the usual flags only.
 */
import type { Backend } from '../../src/backends/backend.js';
import { createCpuBackend } from '../../src/backends/cpu/index.js';

export function createQuickCpuBackend(): Backend {
  return createCpuBackend({ extraFlags: ['-Og'] });
}
