/** The machine file of this machine: written by `kloop calibrate`, read wherever a machine is called `host`. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readMachineFile, type Machine } from '../../simulator/machine.js';
import { UsageError } from '../../util/errors.js';
import { writeFileAtomic } from '../../util/files.js';

/** The name of the machine. */
export const hostName = 'host';

export function hostMachineFile(cacheDir: string): string {
  return join(cacheDir, 'host-machine.json');
}

/** Whole or not at all. @throws StorageError */
export async function writeMachine(file: string, machine: Machine): Promise<void> {
  await writeFileAtomic(file, async (handle) => {
    await handle.writeFile(`${JSON.stringify(machine, null, 2)}\n`);
  });
}

/** Undefined where this machine has not been measured. @throws UsageError for a file that is not a machine */
export function readHostMachine(cacheDir: string): Machine | undefined {
  const file = hostMachineFile(cacheDir);
  return existsSync(file) ? readMachineFile(file) : undefined;
}

/** @throws UsageError where this machine has not been measured */
export function requireHostMachine(cacheDir: string): Machine {
  const machine = readHostMachine(cacheDir);
  if (machine !== undefined) return machine;
  throw new UsageError('this machine has not been measured yet', {
    hint: 'run `kloop calibrate` once, a minute or two',
  });
}
