import { describe, expect, it } from 'vitest';
import { toyMachine } from '../../tests/simulator/toy-machine.js';
import { parseMachine, type Machine } from './machine.js';
import { findPricedModel } from './price.js';
import { simulate } from './simulate.js';
import { afterPause, atMemoryRate, atWorkingSet } from './working-set.js';

const q = <U extends string>(value: number, unit: U) => ({ value, unit, source: 'test', basis: 'measured' }) as const;

/** Small sets are fast, sets of 16 MB are as slow as memory. */
function caching(sizes: readonly number[] = [1e6, 4e6, 16e6]): Machine {
  const toy = toyMachine({ 'memory.bandwidth': 0.5e9 });
  const rates = [64e9, 16e9, 0.5e9];
  const workingSets = sizes.map((size, i) => ({ size: q(size, 'B'), bandwidth: q(rates[i]!, 'B/s') }));
  return parseMachine({ ...toy, memory: { ...toy.memory, workingSets } }, 'test');
}

const rateAt = (bytes: number, machine = caching()): number => atWorkingSet(machine, bytes).memory.bandwidth.value;

describe('working sets', () => {
  it('arrive as fast as the set of their size, and in between at the geometric mean of the middle', () => {
    expect(rateAt(4e6)).toBe(16e9);
    expect(rateAt(1000)).toBe(64e9);
    expect(rateAt(2e6)).toBeCloseTo(32e9, -1);
  });

  it('arrive at the bandwidth of memory where they are larger than all, or none is given', () => {
    expect(rateAt(16e6 + 1)).toBe(0.5e9);
    expect(rateAt(1e3, toyMachine({ 'memory.bandwidth': 1e9 }))).toBe(1e9);
  });

  it('come from memory as fast as it is now, as far as they come from there', () => {
    const now = atMemoryRate(caching(), 1e9);
    expect(rateAt(1e9, now)).toBe(1e9);
    expect(rateAt(16e6, now)).toBeCloseTo(1e9, -1);
    expect(rateAt(1e6, now)).toBe(64e9);
    // A byte took 1/16 ns, of which a part f came at 0.5 GB/s and the rest at 64: f/0.5 + (1 - f)/64 = 1/16.
    const f = (1 / 16 - 1 / 64) / (2 - 1 / 64);
    expect(rateAt(4e6, now)).toBeCloseTo(1e9 / (f + (1 - f) / 64), -1);
    expect(rateAt(4e6, atMemoryRate(caching(), 0.5e9))).toBeCloseTo(16e9, -1);
  });

  it('come from memory after a pause', () => {
    expect(rateAt(1e6, afterPause(caching()))).toBe(0.5e9);
  });

  it('must be in order of size', () => {
    expect(() => caching([4e6, 1e6, 16e6])).toThrow(/memory\.workingSets: must be in order of size/);
  });

  it('make a model that a cache holds faster, and no other', () => {
    const model = findPricedModel('tinystories-15m');
    const point = { schedule: 'looped', sockets: 1, batch: 1, context: 64 } as const;
    const time = (machine: Machine): number => simulate(model.workload(machine, point), machine).tpotUs;
    const toy = toyMachine({ 'memory.bandwidth': 0.5e9 });
    const scaled = (factor: number): Machine => caching([1e6 * factor, 4e6 * factor, 16e6 * factor]);
    expect(time(scaled(1))).toBeCloseTo(time(toy), 3);
    expect(time(scaled(100)) / time(toy)).toBeCloseTo(0.5 / 64, 3);
  });
});
