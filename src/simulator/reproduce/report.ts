/** The figures, ours beside the published ones, and the thresholds that they have to meet. */
import { formatTable } from '../../util/table.js';
import { Lab } from './lab.js';
import { rows, type Row, type RowKind } from './rows.js';
import { median } from './statistics.js';

export interface Outcome {
  readonly figure: string;
  readonly source: string;
  readonly unit: string;
  readonly published: number;
  readonly ours: number;
  /** Percent of the published value. */
  readonly error: number;
  readonly kind: RowKind;
  readonly note?: string;
}

export interface Threshold {
  readonly name: string;
  readonly limit: number;
  readonly value: number;
  readonly met: boolean;
  /** The row that decides it. */
  readonly row?: string;
}

export interface Reproduction {
  readonly rows: readonly Outcome[];
  readonly thresholds: readonly Threshold[];
  readonly conflicts: readonly string[];
}

/** Where the sources contradict each other or leave something open, and what our rows do about it. */
export const conflicts: readonly string[] = [
  'HBM peak of SN40L: 1.6, 1.8 and 2.0 TB/s are printed; loads run at a fitted part of 1.8, percent is of 1.6. DDR: 100 and 200 GB/s; 100 is used.',
  'DGX H100: 24.0 TB/s (as DF26 counts) and 26.8 TB/s (data sheet); loads run at a fitted part of the data sheet, percent is of 24.0.',
  '"3.7x over DGX H100" would be 1084 tok/s; DF26 prints 1140, which is 3.89x. 1140 is calibrated on, 3.7 is shown.',
  '"Over 90% of peak" matches the decoder trace (94% of 1.6 TB/s), not the whole token (1140 tok/s is 73.9%); the later "over 75%" is not attributed. Both are shown.',
  '"Up to 2.5x over sockets" has no stated base; shown against 4 sockets, not judged.',
  'Without a host term the trace contradicts 2.2x: speedups are taken with the host in the loop, 1140 tok/s without. The host round trip is fitted to the 2.2x.',
  'The context of the HBM trace is not stated; rate times period (32.6 to 33.4 MB a layer) is that of 8192 positions.',
  'Looping 70B at 4K is printed as 1.6x for batch 1 and 2.1x for batch 8, at 8K as 1.8x for both: no smooth model gives all four.',
  'Mixtral is printed as 1.2x at batch 1, like at batch 16. Ours reads 2 of 8 experts at batch 1; a machine that always reads all experts would show about 1.3x at every batch.',
];

const limits = { calibrated: 3, median: 8, worst: 20 } as const;

export function reproduce(lab: Lab = new Lab()): Reproduction {
  const outcomes = rows.map((row) => evaluate(row, lab));
  return { rows: outcomes, thresholds: thresholdsOf(outcomes), conflicts };
}

function evaluate({ figure, source, unit, published, kind, note, ours }: Row, lab: Lab): Outcome {
  const value = ours(lab);
  const error = (value / published - 1) * 100;
  return { figure, source, unit, published, ours: value, error, kind, ...(note === undefined ? {} : { note }) };
}

function thresholdsOf(outcomes: readonly Outcome[]): Threshold[] {
  const of = (kind: RowKind): readonly Outcome[] => outcomes.filter((outcome) => outcome.kind === kind);
  const size = ({ error }: Outcome): number => Math.abs(error);
  const worst = (kind: RowKind): Outcome => of(kind).reduce((a, b) => (size(b) > size(a) ? b : a));
  const worstThreshold = (name: string, kind: RowKind, limit: number): Threshold => {
    const row = worst(kind);
    return { name, limit, value: size(row), met: size(row) <= limit, row: row.figure };
  };
  const middle = median(of('predicted').map(size));
  return [
    // Printed to four digits.
    worstThreshold('counted rows, worst', 'counted', 0.05),
    worstThreshold('calibrated rows, worst', 'calibrated', limits.calibrated),
    { name: 'predicted rows, median', limit: limits.median, value: middle, met: middle <= limits.median },
    worstThreshold('predicted rows, worst', 'predicted', limits.worst),
  ];
}

export function formatReproduction({ rows: outcomes, thresholds, conflicts: known }: Reproduction): string[] {
  const columns = [
    { title: 'figure' },
    { title: 'published', align: 'right' as const },
    { title: 'ours', align: 'right' as const },
    { title: 'error', align: 'right' as const },
    { title: 'kind' },
    { title: 'source' },
  ];
  const cells = outcomes.map((outcome) => [
    outcome.figure,
    `${formatValue(outcome.published)} ${outcome.unit}`,
    formatValue(outcome.ours),
    formatError(outcome.error),
    outcome.kind,
    outcome.note === undefined ? outcome.source : `${outcome.source} (${outcome.note})`,
  ]);
  return [
    ...formatTable(columns, cells),
    '',
    ...thresholds.map((threshold) => `${threshold.met ? 'met   ' : 'MISSED'}  ${formatThreshold(threshold)}`),
    '',
    'known conflicts of the sources, and what the rows do:',
    ...known.map((line) => `- ${line}`),
  ];
}

/** What it is about, the value, the limit, and the row that is worst. */
export function formatThreshold({ name, value, limit, row }: Threshold): string {
  return `${name}: ${value.toFixed(2)}%, limit ${limit}%${row === undefined ? '' : ` (${row})`}`;
}

/** The same as Markdown, for docs/simulator.md. */
export function formatMarkdown({ rows: outcomes, thresholds, conflicts: known }: Reproduction): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [
    line(['figure', 'published', 'ours', 'error', 'kind', 'source']),
    line(['---', '---:', '---:', '---:', '---', '---']),
    ...outcomes.map(({ figure, published, unit, ours, error, kind, source, note }) =>
      line([
        figure,
        `${formatValue(published)} ${unit}`,
        formatValue(ours),
        formatError(error),
        kind,
        note === undefined ? source : `${source}; ${note}`,
      ]),
    ),
    '',
    line(['threshold', 'value', 'limit', '']),
    line(['---', '---:', '---:', '---']),
    ...thresholds.map(({ name, value, limit, met, row }) =>
      line([
        name,
        `${value.toFixed(2)}%`,
        `${limit}%`,
        `${met ? 'met' : 'missed'}${row === undefined ? '' : `: ${row}`}`,
      ]),
    ),
    '',
    'Where the sources contradict each other or leave something open:',
    '',
    ...known.map((each) => `- ${each}`),
  ];
}

/** Four significant digits, at most three decimals. */
function formatValue(value: number): string {
  return String(Number(Number(value.toPrecision(4)).toFixed(3)));
}

function formatError(percent: number): string {
  return `${percent >= 0 ? '+' : ''}${percent.toFixed(1)}%`;
}
