/** The machine of `--machine`: a built-in one, this one as `kloop calibrate` measured it, or a file. */
import { defaultCacheDir } from '../backends/cache-dir.js';
import { hostName, requireHostMachine } from '../bench/calibrate/host-file.js';
import type { Machine } from '../simulator/machine.js';
import { findMachine, machines } from '../simulator/machines/index.js';

export const machineNames = [...machines.map(({ name }) => name), `${hostName} (after \`kloop calibrate\`)`].join(', ');

/** @throws UsageError */
export function machineOf(spec: string, cacheDir: string = defaultCacheDir()): Machine {
  return spec.toLowerCase() === hostName ? requireHostMachine(cacheDir) : findMachine(spec, [hostName]);
}
