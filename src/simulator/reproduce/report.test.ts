import { expect, it } from 'vitest';
import { dgxH100 } from '../machines/dgx-h100.js';
import { fittedH100, fittedSn40l } from '../machines/fitted.js';
import { withValues } from '../machine.js';
import { figures } from './figures.js';
import { fitMachine } from './fit.js';
import { Lab } from './lab.js';
import { formatReproduction, reproduce } from './report.js';
import { rows } from './rows.js';

const lab = new Lab();

it('counts exactly, calibrates within 3%, predicts with a median within 8%', () => {
  const { thresholds, rows: outcomes } = reproduce(lab);
  const met = Object.fromEntries(thresholds.map((threshold) => [threshold.name, threshold.met]));
  expect(met).toMatchObject({
    'counted rows, worst': true,
    'calibrated rows, worst': true,
    'predicted rows, median': true,
  });
  const calls = outcomes.filter(({ unit }) => unit === 'calls').map(({ ours }) => ours);
  expect(calls).toEqual([323, 35, 4]);
});

it('a worse machine misses thresholds', () => {
  const worse = lab.with(withValues(lab.machine('sn40l'), { 'memory.bandwidth': 1e12 }));
  const missed = reproduce(worse).thresholds.filter(({ met }) => !met);
  expect(missed.map(({ name }) => name)).toContain('calibrated rows, worst');
});

it('prints every figure, threshold and conflict', () => {
  const result = reproduce(lab);
  const text = formatReproduction(result).join('\n');
  for (const { figure } of rows) expect(text).toContain(figure);
  for (const { name } of result.thresholds) expect(text).toContain(name);
  for (const line of result.conflicts) expect(text).toContain(line);
});

it('the fit looks at calibrated rows only, and gives the committed constants', () => {
  for (const row of rows) expect(row.fits === undefined, row.figure).toBe(row.kind !== 'calibrated');
  // Whatever the constants are now.
  const off = withValues(dgxH100, { 'latency.linear': 9, 'memory.efficiency': 0.5 });
  expect(fitMachine('dgx-h100', lab.with(off)).values).toEqual(fittedH100);
  expect(fitMachine('sn40l', lab).values).toEqual(fittedSn40l);
});

it('draws well-formed figures that follow light and dark', () => {
  const drawn = figures(lab);
  expect(drawn.map(({ name }) => name)).toEqual([
    'tokens-per-second',
    'tpot-breakdown',
    'hbm-bandwidth',
    'speedup',
    'socket-scaling',
  ]);
  for (const { svg } of drawn) {
    expect(svg).toMatch(/^<svg [^]*<\/svg>\n$/);
    expect(svg).toContain('prefers-color-scheme: dark');
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  }
});
