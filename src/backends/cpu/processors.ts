/** How many workers pay: one per physical core that this process may use. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Physical cores within the affinity of this process and the CPU quota of its control group. */
export function physicalCores(): number {
  const allowed = allowedProcessors();
  const cores = new Set(allowed.map(coreOf));
  const count = cores.size > 0 ? cores.size : availableParallelism();
  return Math.max(1, Math.min(count, quota()));
}

/** A processor for each of `threads` workers: first one of every core, then the other hardware threads, and again. */
export function processorsFor(threads: number): Int32Array | null {
  const allowed = allowedProcessors();
  if (allowed.length === 0) return null;
  const cores = new Set<string>();
  const firsts = allowed.filter((processor) => {
    const core = coreOf(processor);
    const isFirst = !cores.has(core);
    cores.add(core);
    return isFirst;
  });
  const order = [...firsts, ...allowed.filter((processor) => !firsts.includes(processor))];
  return Int32Array.from({ length: threads }, (_, i) => order[i % order.length]!);
}

/** Processor numbers of the affinity mask; empty where the system does not tell. */
function allowedProcessors(): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readText('/proc/self/status'))?.[1] ?? '';
  return list.split(',').flatMap((part) => {
    const [first, last = first] = part.split('-').map(Number);
    if (first === undefined || last === undefined || !Number.isInteger(first) || last > 4096) return [];
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

/** A text that is equal for hardware threads of one core. */
function coreOf(processor: number): string {
  const siblings = readText(`/sys/devices/system/cpu/cpu${processor}/topology/thread_siblings_list`).trim();
  return siblings === '' ? `cpu${processor}` : siblings;
}

/** CPUs' worth of time that the control group may use, rounded up; Infinity without a limit. */
function quota(): number {
  const [limit, period] = readText('/sys/fs/cgroup/cpu.max').split(' ').map(Number);
  return limit === undefined || period === undefined || !(limit > 0 && period > 0)
    ? Number.POSITIVE_INFINITY
    : Math.ceil(limit / period);
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
