/** The paper's figures, drawn from our simulations with the published values beside them where there are any. */
import { defined } from '../../util/assert.js';
import { callSlices, type Slice } from '../call-events.js';
import { categories } from '../workload.js';
import type { Lab, Setup } from './lab.js';
import { rows } from './rows.js';
import { barChart, lineChart } from './svg.js';

export interface Figure {
  readonly name: string;
  readonly svg: string;
}

const llama8b = 'llama-3.1-8b';
const sn40l: Setup = { model: llama8b, machine: 'sn40l', sockets: 16, schedule: 'looped' };
const h100: Setup = { model: llama8b, machine: 'dgx-h100', sockets: 8, schedule: 'operator' };

export function figures(lab: Lab): Figure[] {
  return [
    { name: 'tokens-per-second', svg: tokensPerSecond(lab) },
    { name: 'tpot-breakdown', svg: tpotBreakdown(lab) },
    { name: 'hbm-bandwidth', svg: hbmBandwidth(lab) },
    { name: 'speedup', svg: speedup(lab) },
    { name: 'socket-scaling', svg: socketScaling(lab) },
  ];
}

function publishedAndOurs(
  lab: Lab,
  prefixes: readonly string[],
): { readonly published: number[]; readonly ours: number[] } {
  const found = prefixes.map((prefix) =>
    defined(
      rows.find(({ figure }) => figure.startsWith(prefix)),
      prefix,
    ),
  );
  return { published: found.map(({ published }) => published), ours: found.map(({ ours }) => ours(lab)) };
}

function tokensPerSecond(lab: Lab): string {
  const names = ['8B, batch 1: 2 x H100', '8B, batch 1: 8 x H100', '8B, batch 1: SN40L-16, looped'];
  const { published, ours } = publishedAndOurs(lab, names);
  return barChart({
    title: 'Llama 3.1 8B, batch 1: tokens per second',
    unit: 'tok/s',
    groups: ['2 x H100', 'DGX H100', 'SN40L-16, looped'],
    series: [
      { name: 'published', values: published },
      { name: 'simulated', values: ours },
    ],
  });
}

function tpotBreakdown(lab: Lab): string {
  const gpus = [2, 8];
  const runs = gpus.map((sockets) => lab.run({ ...h100, sockets }));
  return barChart({
    title: 'Llama 3.1 8B on H100: where the time of a token goes (simulated)',
    unit: 'us',
    groups: gpus.map((count) => `${count} x H100`),
    stacked: true,
    series: [
      ...categories.map((name) => ({ name, values: runs.map(({ categoriesUs }) => categoriesUs[name]) })),
      { name: 'gaps', values: runs.map(({ breakdownUs }) => breakdownUs.launch + breakdownUs.sync) },
    ],
  });
}

const bins = 240;
const windowUs = 300;

function hbmBandwidth(lab: Lab): string {
  const lines = (['layer', 'looped'] as const).map((schedule) => {
    const setup: Setup = { ...sn40l, schedule, context: 8192 };
    const slices: Slice[] = [];
    for (const call of callSlices(lab.workload(setup), lab.machine('sn40l'), 'offloaded')) {
      slices.push(...call.slices.filter(({ track }) => track === 'memory'));
    }
    const name = schedule === 'layer' ? 'not looped' : 'looped';
    return { name, points: rateOverTime(slices) };
  });
  return lineChart({
    title: 'HBM of one of 16 sockets, Llama 3.1 8B (simulated)',
    xTitle: 'us',
    yTitle: 'GB/s',
    lines,
  });
}

/** Mean rate in equal bins of a window that starts 200 us into the token. */
function rateOverTime(slices: readonly Slice[]): [number, number][] {
  const binUs = windowUs / bins;
  const bytes = new Float64Array(bins);
  for (const { startUs, endUs, bytes: size = 0 } of slices) {
    const from = (startUs - 200) / binUs;
    const to = (endUs - 200) / binUs;
    for (let bin = Math.max(0, Math.floor(from)); bin < Math.min(bins, Math.ceil(to)); bin++) {
      const part = (Math.min(to, bin + 1) - Math.max(from, bin)) / (to - from);
      bytes[bin] = bytes[bin]! + size * part;
    }
  }
  return Array.from(bytes, (size, bin): [number, number] => [bin * binUs, size / binUs / 1e3]);
}

function speedup(lab: Lab): string {
  const found = rows.filter(({ figure }) => figure.startsWith('looping on SN40L-16: ') && !figure.includes('mean'));
  return barChart({
    title: 'Speedup by kernel looping on SN40L-16',
    unit: 'x',
    groups: found.map(({ figure }) =>
      figure
        .replace('looping on SN40L-16: ', '')
        .replace('Mixtral 8x7B', '8x7B')
        .replace(', batch ', '/')
        .replace(', ', ' '),
    ),
    series: [
      { name: 'published', values: found.map(({ published }) => published) },
      { name: 'simulated', values: found.map(({ ours }) => ours(lab)) },
    ],
  });
}

function socketScaling(lab: Lab): string {
  const sockets = [1, 2, 4, 8, 16];
  const line = (schedule: Setup['schedule'], name: string) => ({
    name,
    points: sockets.map((count): [number, number] => [
      count,
      lab.run({ ...sn40l, schedule, sockets: count }).tokensPerSecond,
    ]),
  });
  return lineChart({
    title: 'Llama 3.1 8B, batch 1, by SN40L sockets (simulated)',
    xTitle: 'sockets',
    yTitle: 'tok/s',
    lines: [
      line('looped', 'looped'),
      line('layer', 'a call for each layer'),
      line('operator', 'a call for each operator'),
    ],
  });
}
