/** The machines that go by name. A new one is a file here and a line in this list. */
import { UsageError } from '../../util/errors.js';
import { readMachineFile, type Machine } from '../machine.js';
import { dgxH100 } from './dgx-h100.js';
import { h200 } from './h200.js';
import { sn40l } from './sn40l.js';

export const machines: readonly Machine[] = [sn40l, dgxH100, h200];

/** A machine by name, or from a `.json` file. @param others names that the caller knows @throws UsageError */
export function findMachine(spec: string, others: readonly string[] = []): Machine {
  if (spec.endsWith('.json')) return readMachineFile(spec);
  const found = machines.find(({ name }) => name === spec.toLowerCase());
  if (found !== undefined) return found;
  const names = [...machines.map(({ name }) => name), ...others].join(', ');
  throw new UsageError(`there is no machine "${spec}"`, { hint: `use one of ${names}, or a .json file` });
}
