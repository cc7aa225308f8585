/** How fast a model arrives where caches hold all or some of it from one token to the next. */
import { defined } from '../util/assert.js';
import type { Machine } from './machine.js';

/** The machine as a model of `bytes` finds it: with the memory bandwidth of a working set of this size. */
export function atWorkingSet(machine: Machine, bytes: number): Machine {
  const rate = cachedRate(machine, bytes);
  if (rate === undefined) return machine;
  const { memory } = machine;
  return {
    ...machine,
    memory: {
      ...memory,
      bandwidth: { ...memory.bandwidth, value: rate },
      efficiency: { ...memory.efficiency, value: 1 },
    },
  };
}

/** Bytes per second; undefined where caches make no difference. */
function cachedRate({ memory: { workingSets = [] } }: Machine, bytes: number): number | undefined {
  const above = workingSets.findIndex(({ size }) => size.value >= bytes);
  if (above < 0) return undefined;
  const high = defined(workingSets[above], 'working set');
  const low = workingSets[above - 1];
  if (low === undefined) return high.bandwidth.value;
  // Caches of very different sizes: even steps are those of the logarithm.
  const part = Math.log(bytes / low.size.value) / Math.log(high.size.value / low.size.value);
  return low.bandwidth.value * (high.bandwidth.value / low.bandwidth.value) ** part;
}
