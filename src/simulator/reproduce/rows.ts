/**
 * Every figure of the paper and of the work around it that we know in numbers, and how it comes out of the simulator.
 * Sources as in docs/simulator.md. `calibrated` rows are what the constants are fitted to; `predicted` rows are not
 * looked at by the fit; `counted` rows are arithmetic on the programs; `claim` rows are statements with a bound or
 * without a stated base, shown and not judged.
 */
import type { Machine } from '../machine.js';
import { geometricMean } from './statistics.js';
import type { Category } from '../workload.js';
import type { Lab, Setup } from './lab.js';

export type RowKind = 'calibrated' | 'predicted' | 'counted' | 'claim';

export interface Row {
  readonly figure: string;
  readonly source: string;
  readonly unit: string;
  readonly published: number;
  readonly kind: RowKind;
  /** Name under which the fit of this machine uses it. */
  readonly fits?: 'sn40l' | 'dgx-h100';
  readonly note?: string;
  readonly ours: (lab: Lab) => number;
}

const llama8b = 'llama-3.1-8b';
const GB = 1e9;

function sn40l(model: string, rest: Partial<Setup> = {}): Setup {
  return { model, machine: 'sn40l', sockets: 16, schedule: 'looped', ...rest };
}

function h100(gpus: number): Setup {
  return { model: llama8b, machine: 'dgx-h100', sockets: gpus, schedule: 'operator' };
}

/** Not looped over looped, as published: both with the host in the loop. */
function loopingSpeedup(lab: Lab, setup: Setup): number {
  const hosted = { ...setup, orchestration: 'host' as const };
  return lab.run({ ...hosted, schedule: 'layer' }).tpotUs / lab.run({ ...hosted, schedule: 'looped' }).tpotUs;
}

const counted: readonly Row[] = [
  ...(
    [
      ['DGX H100, one kernel per operator', h100(8), 323],
      ['SN40L-8, one kernel per layer', sn40l(llama8b, { sockets: 8, schedule: 'layer' }), 35],
      ['SN40L-8, looped', sn40l(llama8b, { sockets: 8 }), 4],
    ] as const
  ).map(([name, setup, published]): Row => ({
    figure: `kernel calls per token: ${name}`,
    source: 'KL24',
    unit: 'calls',
    published,
    kind: 'counted',
    ours: (lab) => lab.run(setup).callsPerToken,
  })),
  countedBytes('weights of a layer, 8B in bf16', 0.4362, (lab) => layerWeights(lab)),
  countedBytes('LM head', 1.0507, (lab) => headWeights(lab)),
  countedBytes('KV cache at 4096 positions', 0.5369, (lab) => cacheBytes(lab)),
  countedBytes('needed per token, one embedding row', 15.546, (lab) => lab.run(oneSocket).bytesPerToken),
  {
    figure: 'arithmetic per token',
    source: 'derived from the configuration (KL24 prints 20)',
    unit: 'GFLOP',
    published: 17.7,
    kind: 'claim',
    note: 'between 17.2 and 18.2 depending on what is counted',
    ours: (lab) => flops(lab) / 1e9,
  },
];

const oneSocket: Setup = { model: llama8b, machine: 'sn40l', sockets: 1, schedule: 'layer' };

function countedBytes(figure: string, published: number, bytes: (lab: Lab) => number): Row {
  const source = 'derived from the configuration';
  return { figure, source, unit: 'GB', published, kind: 'counted', ours: (lab) => bytes(lab) / GB };
}

function nodesOf(lab: Lab, kernel: string) {
  const call = lab.workload(oneSocket).calls.find((candidate) => candidate.kernel.name === kernel);
  return call?.kernel.parts.flatMap(({ nodes }) => nodes) ?? [];
}

function layerWeights(lab: Lab): number {
  return nodesOf(lab, 'layer').reduce((sum, { cost }) => sum + cost.weightBytes, 0);
}

function headWeights(lab: Lab): number {
  return nodesOf(lab, 'lm_head').reduce((sum, { kind, cost }) => sum + (kind === 'linear' ? cost.weightBytes : 0), 0);
}

function cacheBytes(lab: Lab): number {
  const read = nodesOf(lab, 'layer').reduce(
    (sum, { kind, cost }) => sum + (kind === 'attention' ? cost.stateBytes : 0),
    0,
  );
  return read * lab.workload(oneSocket).calls.filter(({ layer }) => layer !== undefined).length;
}

function flops(lab: Lab): number {
  const { calls } = lab.workload(oneSocket);
  return calls
    .flatMap(({ kernel }) => kernel.parts.flatMap(({ nodes }) => nodes))
    .reduce((sum, { cost }) => sum + cost.flops, 0);
}

const throughput: readonly Row[] = [
  { gpus: 2, published: 205 },
  { gpus: 8, published: 293 },
].map(({ gpus, published }) => ({
  figure: `8B, batch 1: ${gpus} x H100`,
  source: 'DF26 Fig 1a',
  unit: 'tok/s',
  published,
  kind: 'calibrated',
  fits: 'dgx-h100',
  ours: (lab) => lab.run(h100(gpus)).tokensPerSecond,
}));

const sn40lThroughput: readonly Row[] = [
  {
    figure: '8B, batch 1: SN40L-16, looped',
    source: 'DF26 Fig 1a',
    unit: 'tok/s',
    published: 1140,
    kind: 'calibrated',
    fits: 'sn40l',
    note: 'taken as offloaded (no host in the loop), 4096 positions',
    ours: (lab) => lab.run(sn40l(llama8b)).tokensPerSecond,
  },
  {
    figure: '8B per user, cloud service, 16 sockets',
    source: 'SN40L Table IV',
    unit: 'tok/s',
    published: 1042,
    kind: 'predicted',
    ours: (lab) => lab.run(sn40l(llama8b)).tokensPerSecond,
  },
];

/** Names of the parts in the figures. */
export const partTitles: Readonly<Record<Category, string>> = {
  gemm: 'GEMM',
  attention: 'SDPA',
  elementwise: 'norms, SiLU, mul',
  'all-reduce': 'all-reduce',
  other: 'outside the decoder',
};

const gpuBreakdown: readonly Row[] = (
  [
    [2, { gemm: 2522, attention: 326, elementwise: 358, 'all-reduce': 365, other: 892 }, 4462.4],
    [8, { gemm: 882, attention: 327, elementwise: 309, 'all-reduce': 555, other: 791 }, 2863.5],
  ] as const
).flatMap(([gpus, parts, total]): Row[] => [
  ...(Object.keys(parts) as Category[]).map((part): Row => ({
    figure: `TPOT of ${gpus} x H100: ${partTitles[part]}`,
    source: 'DF26 Fig 2, read off +/-8',
    unit: 'us',
    published: parts[part],
    kind: 'calibrated',
    fits: 'dgx-h100',
    ours: (lab) => lab.run(h100(gpus)).categoriesUs[part],
  })),
  {
    figure: `TPOT of ${gpus} x H100: kernels in all`,
    source: 'DF26 Fig 2',
    unit: 'us',
    published: total,
    kind: 'calibrated',
    fits: 'dgx-h100',
    ours: (lab) => Object.values(lab.run(h100(gpus)).categoriesUs).reduce((a, b) => a + b, 0),
  },
  {
    figure: `TPOT of ${gpus} x H100: wall minus kernels`,
    source: 'derived from DF26 Fig 1a and 2',
    unit: 'us',
    published: gpus === 2 ? 416 : 549,
    kind: 'claim',
    note: 'difference of two printed figures; the fit uses both of them',
    ours: (lab) => lab.run(h100(gpus)).breakdownUs.launch + lab.run(h100(gpus)).breakdownUs.sync,
  },
]);

/** The context of the trace is not stated; rate times period is 32.6 to 33.4 MB a layer: 8192 positions, not 4096. */
const traced = { context: 8192 };

/** The layer calls of a program that is not looped: period of a call, and its bytes. */
function layerCall(
  lab: Lab,
  setup: Setup,
): { readonly periodUs: number; readonly bytes: number; readonly activeUs: number } {
  const simulation = lab.run({ ...setup, schedule: 'layer' });
  const call = simulation.calls.find(({ layer }) => layer !== undefined);
  const node = simulation.workload.calls.find(({ layer }) => layer !== undefined);
  const bytes =
    node?.kernel.parts
      .flatMap(({ nodes }) => nodes)
      .reduce((s, { cost }) => s + cost.weightBytes + cost.stateBytes, 0) ?? 0;
  const periodUs = call === undefined ? NaN : (call.launchPs + call.bodyPs + call.syncPs) / 1e6;
  return { periodUs, bytes, activeUs: (bytes / loadRate(simulation.machine)) * 1e6 };
}

/** Bytes per second. */
function loadRate({ memory: { bandwidth, efficiency } }: Machine): number {
  return bandwidth.value * efficiency.value;
}

function loopedLayer(lab: Lab, setup: Setup): { readonly periodUs: number; readonly bytes: number } {
  return { periodUs: lab.run({ ...setup, schedule: 'looped' }).iterationUs ?? NaN, bytes: layerCall(lab, setup).bytes };
}

const traceNote = 'context not stated; 8192 positions fit rate x period';

function traceRow(
  figure: string,
  unit: string,
  published: number,
  kind: RowKind,
  ours: Row['ours'],
  note = traceNote,
): Row {
  const fits = kind === 'calibrated' ? { fits: 'sn40l' as const } : {};
  const source = 'DF26 Fig 11, read off';
  return { figure: `HBM trace, 8B on SN40L-16, ${figure}`, source, unit, published, kind, note, ...fits, ours };
}

const trace: readonly Row[] = [
  traceRow(
    'not looped: period of a layer',
    'us',
    73.9,
    'calibrated',
    (lab) => layerCall(lab, sn40l(llama8b, traced)).periodUs,
  ),
  traceRow('not looped: mean rate', 'GB/s', 452, 'calibrated', (lab) => {
    const { bytes, periodUs } = layerCall(lab, sn40l(llama8b, traced));
    return bytes / periodUs / 1e3;
  }),
  traceRow(
    'not looped: HBM active',
    'us',
    25,
    'claim',
    (lab) => layerCall(lab, sn40l(llama8b, traced)).activeUs,
    'printed as "about"; rate x period at the looped rate gives 22',
  ),
  traceRow(
    'looped: period of a layer',
    'us',
    21.75,
    'calibrated',
    (lab) => loopedLayer(lab, sn40l(llama8b, traced)).periodUs,
  ),
  traceRow('looped: mean rate', 'GB/s', 1500, 'calibrated', (lab) => {
    const { bytes, periodUs } = loopedLayer(lab, sn40l(llama8b, traced));
    return bytes / periodUs / 1e3;
  }),
  traceRow(
    'looped: plateau',
    'GB/s',
    1690,
    'claim',
    (lab) => loadRate(lab.machine('sn40l')) / 1e9,
    'read off +/-10; follows from the rows above and from what a layer waits for',
  ),
];

const speedups: readonly (readonly [
  model: string,
  title: string,
  context: number,
  batch: number,
  published: number,
])[] = [
  [llama8b, '8B', 4096, 1, 2.2],
  [llama8b, '8B', 4096, 8, 2.2],
  [llama8b, '8B', 8192, 1, 2.1],
  [llama8b, '8B', 8192, 8, 2.1],
  ['llama-3.1-70b', '70B', 4096, 1, 1.6],
  ['llama-3.1-70b', '70B', 4096, 8, 2.1],
  ['llama-3.1-70b', '70B', 8192, 1, 1.8],
  ['llama-3.1-70b', '70B', 8192, 8, 1.8],
  ['llama-3.1-405b', '405B', 8192, 1, 1.3],
  ['llama-3.1-405b', '405B', 8192, 4, 1.3],
  ['mixtral-8x7b', 'Mixtral 8x7B', 4096, 1, 1.2],
  ['mixtral-8x7b', 'Mixtral 8x7B', 4096, 8, 1.3],
  ['mixtral-8x7b', 'Mixtral 8x7B', 4096, 16, 1.2],
];

const loopingRows: readonly Row[] = [
  ...speedups.map(([model, title, context, batch, published], index): Row => ({
    figure: `looping on SN40L-16: ${title}, ${context / 1024}K, batch ${batch}`,
    source: 'DF26 Fig 10',
    unit: 'x',
    published,
    ...(index === 0 ? { kind: 'calibrated', fits: 'sn40l' } : { kind: 'predicted' }),
    ours: (lab) => loopingSpeedup(lab, sn40l(model, { context, batch })),
  })),
  {
    figure: 'looping on SN40L-16: geometric mean',
    source: 'DF26 Fig 10',
    unit: 'x',
    published: 1.6,
    kind: 'predicted',
    note: 'over the rows above',
    ours: (lab) =>
      geometricMean(speedups.map(([model, , context, batch]) => loopingSpeedup(lab, sn40l(model, { context, batch })))),
  },
];

const offloading: readonly Row[] = (
  [
    [1, 1.48],
    [2, 1.43],
    [4, 1.39],
    [8, 1.33],
    [16, 1.29],
  ] as const
).map(([batch, published]) => ({
  figure: `schedule offloading, 8B, batch ${batch}`,
  source: 'DF26, read off +/-0.01',
  unit: 'x',
  published,
  kind: 'predicted',
  ours: (lab) => {
    const setup = sn40l(llama8b, { batch });
    return lab.run({ ...setup, orchestration: 'host' }).tpotUs / lab.run(setup).tpotUs;
  },
}));

const batchStreaming: readonly Row[] = (
  [
    [2, 1.01],
    [4, 1.02],
    [8, 1.05],
    [16, 1.11],
  ] as const
).map(([batch, published]) => ({
  figure: `batch streaming, 8B, batch ${batch}`,
  source: 'DF26, read off',
  unit: 'x',
  published,
  kind: 'predicted',
  ours: (lab) => {
    const setup = sn40l(llama8b, { batch });
    return lab.run(setup).tpotUs / lab.run({ ...setup, batchStreaming: true }).tpotUs;
  },
}));

/** Bytes per second of a socket, of which the papers count percent. */
const sn40lPeak = 1.6e12;

const claims: readonly Row[] = [
  {
    figure: 'DGX H100, 8B: part of 24.0 TB/s',
    source: 'KL24, DF26',
    unit: '%',
    published: 21,
    kind: 'claim',
    note: 'follows from the tokens per second; bytes as the papers count, 16.597 GB',
    ours: (lab) => (lab.run(h100(8)).tokensPerSecond * 16.597 * GB * 100) / 24e12,
  },
  ...[8, 16].map((sockets): Row => ({
    figure: `SN40L-${sockets}, looped decoder: part of peak`,
    source: 'KL24: "over 90%"; later talk: "over 75%"',
    unit: '%',
    published: 90,
    kind: 'claim',
    note: 'a lower bound; about the decoder, not the whole token',
    ours: (lab) => {
      const { bytes, periodUs } = loopedLayer(lab, sn40l(llama8b, { sockets }));
      return ((bytes / (periodUs * 1e-6)) * 100) / sn40lPeak;
    },
  })),
  {
    figure: 'SN40L-16, looped, whole token: part of peak',
    source: 'derived: 1140 tok/s x 16.597 GB',
    unit: '%',
    published: 73.9,
    kind: 'claim',
    ours: (lab) => (lab.run(sn40l(llama8b)).tokensPerSecond * 16.597 * GB * 100) / (16 * sn40lPeak),
  },
  {
    figure: '8B: SN40L-16 looped over DGX H100',
    source: 'KL24: "up to 3.7x" (DF26 prints 1140 and 293, 3.89x)',
    unit: 'x',
    published: 3.7,
    kind: 'claim',
    ours: (lab) => lab.run(sn40l(llama8b)).tokensPerSecond / lab.run(h100(8)).tokensPerSecond,
  },
  {
    figure: '8B: SN40L-8 looped over DGX H100',
    source: 'KL24: 2x',
    unit: 'x',
    published: 2,
    kind: 'predicted',
    ours: (lab) => lab.run(sn40l(llama8b, { sockets: 8 })).tokensPerSecond / lab.run(h100(8)).tokensPerSecond,
  },
  {
    figure: 'looping over more sockets',
    source: 'KL24: "up to 2.5x"',
    unit: 'x',
    published: 2.5,
    kind: 'claim',
    note: 'the base is not stated; ours is looped, 8B: 16 sockets over 4',
    ours: (lab) => lab.run(sn40l(llama8b)).tokensPerSecond / lab.run(sn40l(llama8b, { sockets: 4 })).tokensPerSecond,
  },
];

/** In the order in which they are printed. */
export const rows: readonly Row[] = [
  ...counted,
  ...throughput,
  ...gpuBreakdown,
  ...sn40lThroughput,
  ...trace,
  ...loopingRows,
  ...offloading,
  ...batchStreaming,
  ...claims,
];
