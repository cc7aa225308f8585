/** The paper's figures, drawn from our simulations with the published values beside them where there are any. */
import { defined } from '../../util/assert.js';
import { callSlices, type Slice } from '../call-events.js';
import { categories } from '../workload.js';
import type { Lab, Setup } from './lab.js';
import { partTitles, rows } from './rows.js';
import { barChart, lineChart } from './svg.js';

export interface Figure {
  readonly name: string;
  readonly svg: string;
}

const llama8b = 'llama-3.1-8b';
const sn40l: Setup = { model: llama8b, machine: 'sn40l', sockets: 16, schedule: 'looped' };

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
  const counts = [2, 8];
  const gaps = 'wall minus kernels';
  const values = (title: string): number[] =>
    counts.flatMap((count) => {
      const row = defined(
        rows.find(({ figure }) => figure === `TPOT of ${count} x H100: ${title}`),
        title,
      );
      return [row.published, row.ours(lab)];
    });
  return barChart({
    title: 'Llama 3.1 8B on H100: where the time of a token goes',
    unit: 'us',
    groups: counts.flatMap((count) => [`${count} x H100\npublished`, `${count} x H100\nsimulated`]),
    stacked: true,
    series: [
      ...categories.map((name) => ({ name, values: values(partTitles[name]) })),
      { name: 'gaps', values: values(gaps) },
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
  const rates = Array.from(bytes, (size, bin): [number, number] => [bin * binUs, size / binUs / 1e3]);
  return [...rates, [windowUs, defined(rates.at(-1), 'bin')[1]]];
}

function speedup(lab: Lab): string {
  const found = rows.filter(({ figure }) => figure.startsWith('looping on SN40L-16: ') && !figure.includes('mean'));
  return barChart({
    title: 'Speedup by kernel looping on SN40L-16',
    unit: 'x',
    groups: found.map(({ figure }) => {
      const [model = '', context = '', batch = ''] = figure.replace('looping on SN40L-16: ', '').split(', ');
      return `${model.replace('Mixtral ', '')}\n${context}, ${batch.replace('batch ', 'b')}`;
    }),
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
