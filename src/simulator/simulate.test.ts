import { describe, expect, it } from 'vitest';
import { toyMachine } from '../../tests/simulator/toy-machine.js';
import type { Schedule } from '../ir/program.js';
import { presets } from '../models/presets.js';
import { defined } from '../util/assert.js';
import { withValues } from './machine.js';
import { findMachine, machines } from './machines/index.js';
import { PricedProgram, findPricedModel } from './price.js';
import { simulate } from './simulate.js';
import { bytesPerToken, type Point } from './workload.js';

const small = new PricedProgram(defined(presets.find(({ name }) => name === 'tinystories-15m')?.config, 'preset'));
const point: Point = { schedule: 'looped', sockets: 1, batch: 1, context: 256 };
const order: readonly Schedule[] = ['operator', 'layer', 'looped', 'response'];

describe.each(machines.map((machine) => [machine.name, machine] as const))('%s', (_, machine) => {
  it('every schedule is at least as fast as the one with more boundaries', () => {
    const times = order.map((schedule) => simulate(small.workload(machine, { ...point, schedule }), machine).tpotUs);
    times.slice(1).forEach((time, i) => expect(time).toBeLessThanOrEqual(times[i]!));
  });

  it('the classes of the breakdown add up to the time of a token', () => {
    for (const schedule of order) {
      for (const orchestration of ['host', 'offloaded'] as const) {
        const { tpotUs, breakdownUs } = simulate(
          small.workload(machine, { ...point, schedule }),
          machine,
          orchestration,
        );
        const { host, launch, memory, wait, drain, sync } = breakdownUs;
        expect(host + launch + memory + wait + drain + sync).toBeCloseTo(tpotUs, 6);
      }
    }
  });

  it('more of anything never hurts', () => {
    const workload = small.workload(machine, point);
    const { tpotUs } = simulate(workload, machine);
    for (const path of ['memory.bandwidth', 'link.bandwidth', 'compute.peak', 'onChip.bandwidth']) {
      const [branch, leaf] = path.split('.') as ['memory', 'bandwidth'];
      const better = withValues(machine, { [path]: machine[branch][leaf].value * 2 });
      expect(simulate(workload, better).tpotUs, path).toBeLessThanOrEqual(tpotUs);
    }
  });

  it('the same input gives the same output, bit for bit', () => {
    const again = new PricedProgram(defined(presets.find(({ name }) => name === 'tinystories-15m')?.config, 'preset'));
    expect(simulate(again.workload(machine, point), machine)).toEqual(
      simulate(small.workload(machine, point), machine),
    );
  });
});

it('a schedule moves boundaries, not bytes', () => {
  const machine = findMachine('sn40l');
  const bytes = order.map((schedule) => bytesPerToken(small.workload(machine, { ...point, schedule })));
  for (const each of bytes) expect(each).toBeCloseTo(defined(bytes[0], 'bytes'), 3);
});

it('a call costs its launch and its synchronization, and the host its round trip', () => {
  const workload = small.workload(toyMachine(), { ...point, schedule: 'layer' });
  const free = simulate(workload, toyMachine()).tpotUs;
  const steps = { 'call.programLoad': 1, 'call.argumentLoad': 2, 'call.launch': 4, 'call.sync': 8 };
  const calls = workload.calls.length;
  expect(simulate(workload, toyMachine(steps)).tpotUs).toBeCloseTo(free + calls * 15, 6);
  const hosted = toyMachine({ ...steps, 'call.hostLaunch': 16, 'call.hostRoundTrip': 100 });
  expect(simulate(workload, hosted, 'host').tpotUs).toBeCloseTo(free + calls * 31 + 100, 6);
  expect(simulate(workload, hosted).tpotUs).toBeCloseTo(free + calls * 15, 6);
});

it('refuses what does not fit, and uses the far memory where there is one', () => {
  const machine = findMachine('dgx-h100');
  const large = findPricedModel('llama-2-70b');
  const on = (sockets: number): Point => ({ schedule: 'layer', sockets, batch: 1, context: 4096 });
  expect(() => simulate(large.workload(machine, on(1)), machine)).toThrow(
    /needs 13\d GB .* has 80 GB; use more sockets/,
  );
  expect(() => simulate(large.workload(machine, on(16)), machine)).toThrow(/at most 8 sockets/);
  expect(() => small.workload(machine, { ...point, context: 300 })).toThrow(/context of 256 positions, not 300/);
  const sn40l = findMachine('sn40l');
  const slow = simulate(large.workload(sn40l, on(1)), sn40l);
  const fast = simulate(large.workload(sn40l, on(4)), sn40l);
  // Three quarters of the weights come over 100 GB/s.
  expect(slow.tpotUs).toBeGreaterThan(10 * fast.tpotUs);
});

it('prices every matrix in its own format', () => {
  const { config } = defined(
    presets.find(({ name }) => name === 'tinystories-15m'),
    'preset',
  );
  const point = { schedule: 'looped', sockets: 1, batch: 1, context: 64 } as const;
  const bytes = (formats: ConstructorParameters<typeof PricedProgram>[1]): number =>
    bytesPerToken(new PricedProgram(config, formats).workload(findMachine('h200'), point));
  const one = new Map([['model.layers.3.mlp.down_proj.weight', 'f32' as const]]);
  expect(bytes({ quant: 'bf16', formats: one }) - bytes({ quant: 'bf16' })).toBe(2 * config.hidden * config.ffn);
  expect(bytes({ quant: 'q8_0' })).toBeLessThan(bytes({ quant: 'bf16' }) * 0.55);
});
