/** How fast a model arrives where caches hold all or some of it from one token to the next. */
import { interpolate } from '../util/statistics.js';
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
    },
  };
}

/** The machine after a pause, in which caches came to hold something else: everything comes from memory. */
export function afterPause(machine: Machine): Machine {
  return { ...machine, memory: { ...machine.memory, workingSets: [] } };
}

/**
 * The machine while its memory reads `rate` bytes per second (by all threads), more or less than when it was measured:
 * the memory of a shared machine does what its neighbours leave. Caches stay as they were; of a working set that is partly
 * in them, the part that came from memory comes at the new rate.
 */
export function atMemoryRate(machine: Machine, rate: number): Machine {
  const { memory } = machine;
  const before = memory.bandwidth.value;
  const inCache = Math.max(...(memory.workingSets ?? []).map(({ bandwidth }) => bandwidth.value));
  const changed = (seen: number): number => {
    if (seen >= inCache || inCache <= before) return seen;
    // A byte takes 1/seen s: some of them 1/inCache, the others 1/before.
    const fromMemory = Math.min(1, (1 / seen - 1 / inCache) / (1 / before - 1 / inCache));
    return 1 / (fromMemory / rate + (1 - fromMemory) / inCache);
  };
  return {
    ...machine,
    memory: {
      ...memory,
      bandwidth: { ...memory.bandwidth, value: rate },
      ...(memory.workingSets === undefined
        ? {}
        : {
            workingSets: memory.workingSets.map(({ size, bandwidth }) => ({
              size,
              bandwidth: { ...bandwidth, value: changed(bandwidth.value) },
            })),
          }),
    },
  };
}

/** Bytes per second; undefined where caches make no difference. */
function cachedRate({ memory: { workingSets = [] } }: Machine, bytes: number): number | undefined {
  const last = workingSets.at(-1);
  if (last === undefined || bytes > last.size.value) return undefined;
  return interpolate(
    workingSets.map(({ size, bandwidth }) => ({ size: size.value, rate: bandwidth.value })),
    bytes,
  );
}
