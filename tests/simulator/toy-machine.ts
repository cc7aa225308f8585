/** A machine with round numbers and nothing that is not asked for: 1 byte takes 1 us, work and latencies are 0. */
import { parseMachine, withValues, type Machine } from '../../src/simulator/machine.js';

function q(value: number, unit: string): object {
  return { value, unit, source: 'test', basis: 'inferred' };
}

/** Numbers by path, as `withValues` has them. */
export function toyMachine(values: Readonly<Record<string, number>> = {}, rest: Partial<Machine> = {}): Machine {
  const us = q(0, 'us');
  const plain = parseMachine(
    {
      name: 'toy',
      title: 'Toy',
      style: 'dataflow',
      maxSockets: 16,
      memory: { bandwidth: q(1e6, 'B/s'), efficiency: q(1, '1'), latency: us, capacity: q(1e12, 'B') },
      onChip: { capacity: q(1e9, 'B'), bandwidth: q(1e18, 'B/s'), tile: q(1, 'B') },
      compute: {
        peak: q(1e21, 'FLOP/s'),
        usable: q(1, '1'),
        rowTile: q(1, '1'),
        rowLanes: q(1, '1'),
        rowBandwidth: q(1e18, 'B/s'),
        headBandwidth: q(1e18, 'B/s'),
      },
      latency: { linear: us, attention: us, cache: us, elementwise: us, sampling: us, stage: us },
      call: {
        programLoad: us,
        argumentLoad: us,
        launch: us,
        sync: us,
        syncPerDoubling: us,
        hostLaunch: us,
        hostRoundTrip: us,
      },
      link: {
        bandwidth: q(1e6, 'B/s'),
        latency: us,
        perPeer: us,
        algorithms: ['ring'],
        collectives: 'pipelined',
      },
    },
    'toy',
  );
  return { ...withValues(plain, values), ...rest };
}
