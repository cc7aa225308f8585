import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UsageError } from '../util/errors.js';
import { parseMachine, quantitiesOf, readMachineFile, withValues } from './machine.js';
import { findMachine, machines } from './machines/index.js';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'kloop-machine-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('machines', () => {
  it.each(machines.map((machine) => [machine.name, machine] as const))(
    '%s is whole, with a source at each number',
    (_, machine) => {
      expect(parseMachine(JSON.parse(JSON.stringify(machine)), machine.name)).toEqual(machine);
      for (const { path, quantity } of quantitiesOf(machine)) expect(quantity.source.length, path).toBeGreaterThan(2);
      expect(findMachine(machine.name.toUpperCase())).toBe(machine);
    },
  );

  it('names the machines there are', () => {
    expect(() => findMachine('cray')).toThrow(/no machine "cray"; use one of sn40l, dgx-h100, h200, or a .json file/);
  });
});

describe('readMachineFile', () => {
  const write = (content: unknown): string => {
    const file = join(dir, 'machine.json');
    writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
    return file;
  };

  it('reads what --print-machine prints', () => {
    const machine = { ...findMachine('h200'), name: 'mine' };
    expect(findMachine(write(machine))).toEqual(machine);
  });

  it('says what is wrong, and where', () => {
    const machine = findMachine('h200');
    const bad = (change: object): string => write({ ...machine, ...change });
    const at = (file: string) => (): unknown => readMachineFile(file);
    expect(at(join(dir, 'absent.json'))).toThrow(/cannot read the machine file .*absent.json: there is no such file/);
    // Neither waits for a writer nor reads without an end.
    symlinkSync('/dev/zero', join(dir, 'endless.json'));
    expect(at(join(dir, 'endless.json'))).toThrow(/endless.json: it is not a regular file/);
    expect(at(dir)).toThrow(/it is not a regular file/);
    expect(at(write('{'))).toThrow(/is not JSON/);
    expect(at(write('[]'))).toThrow(UsageError);
    expect(at(bad({ maxSockets: 0 }))).toThrow(/maxSockets/);
    expect(at(bad({ colour: 'red' }))).toThrow(/colour/);
    const bandwidth = { ...machine.memory.bandwidth, unit: 'GB/s' };
    expect(at(bad({ memory: { ...machine.memory, bandwidth } }))).toThrow(/memory.bandwidth.unit/);
    const negative = { ...machine.memory.bandwidth, value: -1 };
    expect(at(bad({ memory: { ...machine.memory, bandwidth: negative } }))).toThrow(/memory.bandwidth.value/);
  });
});

describe('withValues', () => {
  it('changes numbers by path and leaves the machine alone', () => {
    const machine = findMachine('sn40l');
    const changed = withValues(machine, { 'memory.bandwidth': 2e12 });
    expect(changed.memory.bandwidth).toMatchObject({ value: 2e12, unit: 'B/s', basis: 'inferred' });
    expect(machine.memory.bandwidth.value).toBe(1.8e12);
    expect(changed.call).toEqual(machine.call);
  });

  it('refuses numbers that are not there, or make no machine', () => {
    expect(() => withValues(findMachine('sn40l'), { 'memory.colour': 1 })).toThrow(
      /no number memory.colour; use one of/,
    );
    expect(() => withValues(findMachine('sn40l'), { 'memory.efficiency': 2 })).toThrow(/memory.efficiency/);
  });
});
