/** SambaNova SN40L, 1 to 16 sockets: a dataflow machine. Launch costs and link bandwidth are not public. */
import type { Machine } from '../machine.js';
import { fittedSn40l } from './fitted.js';
import { q, sources } from './sources.js';

const { sn40l: paper, fit } = sources;

const hop = q(0.1, 'us', 'inferred', 'some 150 cycles through units and mesh; the calibration figures do not show it');

export const sn40l: Machine = {
  name: 'sn40l',
  title: 'SambaNova SN40L',
  style: 'dataflow',
  maxSockets: 16,
  memory: {
    bandwidth: q(
      1.8e12,
      'B/s',
      'printed',
      'HC24; 1.6 (DF26, for percent of peak) and "about 2" TB/s too; a trace reaches 1.69',
    ),
    efficiency: q(fittedSn40l['memory.efficiency'], '1', 'fitted', fit),
    latency: q(1, 'us', 'inferred', 'usual for HBM behind an on-chip network; unimportant beside the call costs'),
    capacity: q(64e9, 'B', 'printed', paper),
  },
  farMemory: {
    bandwidth: q(100e9, 'B/s', 'printed', `${paper}; 200 GB/s is printed too, the lower figure is used`),
    capacity: q(1.5e12, 'B', 'printed', paper),
  },
  onChip: {
    capacity: q(520e6, 'B', 'printed', `${paper}: 1040 PMUs of 512 KB`),
    bandwidth: q(100e12, 'B/s', 'printed', `${paper}: "over 100 TB/s"`),
    tile: q(512 * 1024, 'B', 'inferred', 'one PMU'),
    // Inferred from the trace of a looped decoder: 1690 GB/s, and 1500 on average, is a pause of 2.4 us in each layer.
    nextIteration: 'nothing',
  },
  compute: {
    peak: q(638e12, 'FLOP/s', 'printed', `${paper}, BF16`),
    usable: q(0.9, '1', 'printed', `${paper}: a fused decoder uses almost 90% of PCUs and PMUs`),
    rowTile: q(16, '1', 'inferred', 'rows of a systolic tile'),
    rowLanes: q(1, '1', 'inferred', 'rows of a stage follow one another through its pipeline'),
    rowBandwidth: q(96e9, 'B/s', 'derived', `${paper}: 100 TB/s over 1040 PMUs; a row is read from one PMU`),
    headBandwidth: q(10e12, 'B/s', 'derived', 'a tenth of the PMUs works on attention, on all heads and sequences'),
  },
  latency: {
    linear: hop,
    attention: hop,
    cache: hop,
    elementwise: hop,
    sampling: hop,
    stage: q(0, 'us', 'inferred', 'stages hand over tokens in hardware; contained in their latency'),
  },
  call: {
    // Only the sum of the four is known from the fit; the division among them is a convention.
    programLoad: q(fittedSn40l.callUs * 0.4, 'us', 'fitted', `${fit}; 40% of a boundary`),
    argumentLoad: q(fittedSn40l.callUs * 0.2, 'us', 'fitted', `${fit}; 20% of a boundary`),
    launch: q(fittedSn40l.callUs * 0.2, 'us', 'fitted', `${fit}; 20% of a boundary`),
    sync: q(fittedSn40l.callUs * 0.2, 'us', 'fitted', `${fit}; 20% of a boundary`),
    syncPerDoubling: q(0, 'us', 'inferred', 'no figure separates it from the rest'),
    hostLaunch: q(0, 'us', 'inferred', 'no figure separates it from the round trip'),
    hostRoundTrip: q(fittedSn40l['call.hostRoundTrip'], 'us', 'fitted', fit),
  },
  link: {
    bandwidth: q(0.55e12, 'B/s', 'inferred', 'not public'),
    latency: q(0.5, 'us', 'inferred', 'peer to peer, PMU to PMU; not public'),
    perPeer: q(0, 'us', 'inferred', 'peers are written to side by side'),
    algorithms: ['one-shot', 'tree', 'ring'],
    collectives: 'pipelined',
  },
};
