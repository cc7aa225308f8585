/** Which contexts are measured where a device holds the memory of all variants at once. */
import type { MemoryNeed } from '../backends/backend.js';
import { ToolchainError } from '../util/errors.js';
import { formatBytes } from '../util/units.js';
import type { Plan, SkippedContext } from './settings.js';

/**
 * The plan with all `contexts`, or without the longest of them, or without the two longest, and so on, until there is memory.
 * @param planOf the plan that decodes at these contexts. @param needOf what all variants of a plan take, and what is free
 * @throws ToolchainError where there is not even memory for the plan without contexts
 */
export function fitContexts(
  contexts: readonly number[],
  planOf: (contexts: readonly number[]) => Plan,
  needOf: (plan: Plan) => MemoryNeed,
): Plan {
  const skipped: SkippedContext[] = [];
  for (let wanted = [...contexts]; ;) {
    const plan = planOf(wanted);
    const need = needOf(plan);
    if (need.needed <= need.free) return { ...plan, skipped: [...plan.skipped, ...skipped] };
    const depths = plan.workloads.flatMap((workload) => (workload.kind === 'decode' ? [workload.depth] : []));
    const longest = Math.max(...wanted.filter((at) => at !== plan.depth && depths.includes(at)));
    const without = wanted.filter((at) => at !== longest);
    // Where the KV cache is as long as it was asked to be, shorter contexts take no less.
    if (without.length === wanted.length || planOf(without).limits.context === plan.limits.context) {
      const [needed, free] = [need.needed, need.free].map(formatBytes);
      throw new ToolchainError(`what is measured needs ${needed!} on the device, and ${free!} are free`, {
        hint: 'measure fewer --schedules at a time, a shorter --context or --depth, or smaller weights with --quant',
      });
    }
    skipped.push({ depth: longest, need });
    wanted = without;
  }
}
