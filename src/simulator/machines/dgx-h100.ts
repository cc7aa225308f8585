/** NVIDIA DGX H100, 1 to 8 GPUs with TensorRT-LLM: kernels one after another, inside a captured graph. */
import type { Machine } from '../machine.js';
import { fittedH100 } from './fitted.js';
import { q, sources } from './sources.js';

const { h100, fit } = sources;
const hazy = 'Hazy Research, "Look Ma, No Bubbles", on H100';

export const dgxH100: Machine = {
  name: 'dgx-h100',
  title: 'NVIDIA H100 (DGX)',
  style: 'sequential',
  maxSockets: 8,
  memory: {
    bandwidth: q(3.35e12, 'B/s', 'printed', `${h100}; DF26 counts 3.0 for percent of peak`),
    efficiency: q(fittedH100['memory.efficiency'], '1', 'fitted', fit),
    latency: q(0, 'us', 'inferred', 'contained in the latencies of the operators'),
    capacity: q(80e9, 'B', 'printed', h100),
  },
  onChip: {
    capacity: q(30e6, 'B', 'derived', `${h100}: 228 KB of shared memory on each of 132 multiprocessors`),
    bandwidth: q(33e12, 'B/s', 'derived', '132 multiprocessors x 128 bytes a cycle x 1.98 GHz'),
    tile: q(132 * 8 * 1024, 'B', 'inferred', '8 KB for each multiprocessor'),
  },
  compute: {
    peak: q(989e12, 'FLOP/s', 'printed', `${h100}, dense BF16`),
    usable: q(0.7, '1', 'inferred', 'usual for large matrix products'),
    rowTile: q(8, '1', 'derived', 'smallest width of a tensor core instruction, operands exchanged'),
    rowLanes: q(132, '1', 'printed', `${h100}: a multiprocessor for each row`),
    rowBandwidth: q(fittedH100['compute.rowBandwidth'], 'B/s', 'fitted', `${fit}; one multiprocessor`),
    headBandwidth: q(16 * 25.4e9, 'B/s', 'derived', '16 blocks of a sequence, each at a 132nd of the memory bandwidth'),
  },
  latency: {
    linear: q(fittedH100['latency.linear'], 'us', 'fitted', `${fit}; ramp and tail of a kernel`),
    attention: q(fittedH100['latency.attention'], 'us', 'fitted', fit),
    cache: q(2, 'us', 'inferred', 'a kernel with next to nothing to do'),
    elementwise: q(fittedH100['latency.elementwise'], 'us', 'fitted', fit),
    sampling: q(fittedH100['latency.sampling'], 'us', 'fitted', `${fit}; all kernels of TensorRT-LLM after the logits`),
    stage: q(0.7, 'us', 'inferred', 'a barrier over all multiprocessors; less than the gap between captured kernels'),
  },
  call: {
    programLoad: q(0, 'us', 'inferred', 'programs stay loaded'),
    argumentLoad: q(0, 'us', 'inferred', 'contained in the gap'),
    launch: q(fittedH100['call.launch'], 'us', 'fitted', `${fit}; ${hazy} measured 1.3 us in a graph`),
    sync: q(0, 'us', 'inferred', 'contained in the gap'),
    syncPerDoubling: q(fittedH100['call.syncPerDoubling'], 'us', 'fitted', `${fit}; GPUs wait for the slowest`),
    hostLaunch: q(0.8, 'us', 'derived', `${hazy}: 2.1 us for each launch without a graph, 1.3 us with`),
    hostRoundTrip: q(0, 'us', 'inferred', 'hidden by asynchronous launches'),
  },
  link: {
    bandwidth: q(450e9, 'B/s', 'printed', `${h100}: NVLink, 900 GB/s in both directions`),
    latency: q(fittedH100['link.latency'], 'us', 'fitted', fit),
    perPeer: q(fittedH100['link.perPeer'], 'us', 'fitted', fit),
    algorithms: ['one-shot', 'ring'],
    collectives: 'alone',
  },
};
