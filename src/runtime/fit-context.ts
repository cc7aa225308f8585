/** The context where nobody asked for one, on machines that take all memory of a model at once. */
import type { MemoryNeed } from '../backends/backend.js';
import type { Limits } from '../ir/program.js';
import { formatBytes } from '../util/units.js';

/** Fewer positions are not chosen without being asked for. */
const leastContext = 256;

/**
 * As many positions as there is memory for: those of `limits`, or half of them, or half of that, and so on; those of `limits`
 * where even few do not fit, so that whoever takes the memory says what is needed.
 * @param memoryFor what limits take, and what is free. @param onNotice is told of fewer positions, and why
 */
export function fitContext(
  limits: Limits,
  memoryFor: (limits: Limits) => MemoryNeed,
  onNotice: (line: string) => void,
): Limits {
  for (let { context } = limits; ; context = Math.ceil(context / 2)) {
    const fitted = { ...limits, context };
    const { needed, free } = memoryFor(fitted);
    if (needed <= free) {
      if (context < limits.context) {
        const fewer = `${context} positions instead of ${limits.context}`;
        onNotice(`the context is ${fewer}, since ${formatBytes(free)} of memory are free; --context asks for a number`);
      }
      return fitted;
    }
    if (context <= leastContext) return limits;
  }
}
