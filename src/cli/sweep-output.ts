/** A sweep as a table, as CSV, or as JSON; columns that do not vary are left out of the table. */
import type { SweepPoint } from '../simulator/sweep-grid.js';
import type { SweepResult } from '../simulator/sweep-points.js';
import { defined } from '../util/assert.js';
import { formatTable } from '../util/table.js';
import { significant } from '../util/units.js';

export type SweepFormat = 'table' | 'csv' | 'json';

export function formatSweep(
  points: readonly SweepPoint[],
  results: readonly SweepResult[],
  format: SweepFormat,
): string[] {
  const records = points.map((point, index) => ({
    ...inputsOf(point),
    ...outputsOf(defined(results[index], 'result')),
  }));
  switch (format) {
    case 'json':
      return [JSON.stringify({ points: records }, null, 2)];
    case 'csv': {
      const keys = [
        ...Object.keys(inputsOf(points[0]!)),
        'tpot_us',
        'tokens_per_second',
        'bandwidth_fraction',
        'calls_per_token',
        'problem',
      ];
      return [keys.join(','), ...records.map((record) => keys.map((key) => csvCell(valueOf(record, key))).join(','))];
    }
    case 'table':
      return table(points, results);
    default:
      return format satisfies never;
  }
}

function inputsOf({
  schedule,
  sockets,
  batch,
  context,
  orchestration,
  values,
}: SweepPoint): Record<string, string | number> {
  return { sockets, batch, context, schedule, orchestration, ...values };
}

function outputsOf(result: SweepResult): Record<string, string | number> {
  if ('problem' in result) return { problem: result.problem };
  return {
    tpot_us: result.tpotUs,
    tokens_per_second: result.tokensPerSecond,
    bandwidth_fraction: result.bandwidthFraction,
    calls_per_token: result.callsPerToken,
  };
}

function valueOf(record: Readonly<Record<string, string | number>>, key: string): string | number {
  return record[key] ?? '';
}

function csvCell(value: string | number): string {
  const text = String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function table(points: readonly SweepPoint[], results: readonly SweepResult[]): string[] {
  const inputs = points.map(inputsOf);
  const first = defined(inputs[0], 'point');
  const varied = Object.keys(first).filter((key) => inputs.some((input) => input[key] !== first[key]));
  const right = { align: 'right' } as const;
  const columns = [
    ...varied.map((title) => ({ title, ...right })),
    { title: 'us per token', ...right },
    { title: 'tokens/s', ...right },
    { title: 'of peak bandwidth', ...right },
  ];
  const rows = results.map((result, index) => {
    const cells = varied.map((key) => String(valueOf(defined(inputs[index], 'point'), key)));
    if ('problem' in result) return [...cells, '-', '-', '-'];
    const { tpotUs, tokensPerSecond, bandwidthFraction } = result;
    return [...cells, significant(tpotUs), significant(tokensPerSecond), `${significant(bandwidthFraction * 100)}%`];
  });
  const problems = new Set(results.flatMap((result) => ('problem' in result ? [result.problem] : [])));
  return [...formatTable(columns, rows), ...[...problems].map((problem) => `-: ${problem}`)];
}
