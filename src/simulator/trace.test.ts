import { expect, it } from 'vitest';
import { findPreset } from '../models/presets.js';
import { defined } from '../util/assert.js';
import { findMachine } from './machines/index.js';
import { findPricedModel, PricedProgram } from './price.js';
import { simulate } from './simulate.js';
import { timeline } from './timeline.js';
import { chromeTrace } from './trace.js';
import { bytesPerToken } from './workload.js';

interface Event {
  readonly ph: string;
  readonly tid: number;
  readonly name: string;
  readonly ts: number;
  readonly dur: number;
  readonly args: { readonly bytes?: number; readonly stalled_us?: number; readonly name?: string };
}

const machine = findMachine('sn40l');
const model = findPricedModel('llama-3.2-1b');
const point = { sockets: 8, batch: 1, context: 4096 } as const;

it.each(['operator', 'layer', 'looped'] as const)(
  '%s: slices nest, end with the token, and carry all bytes',
  (schedule) => {
    const workload = model.workload(machine, { ...point, schedule });
    const json = [...chromeTrace(workload, machine, 'offloaded')].join('');
    const { traceEvents } = JSON.parse(json) as { traceEvents: Event[] };
    const names = new Map(
      traceEvents.filter(({ name }) => name === 'thread_name').map((event) => [event.tid, event.args.name]),
    );
    const slices = traceEvents.filter(({ ph }) => ph === 'X');
    const end = Math.max(...slices.map(({ ts, dur }) => ts + dur));
    expect(end).toBeCloseTo(simulate(workload, machine).tpotUs, 3);

    const loaded = slices.filter(({ tid }) => names.get(tid) === 'memory');
    const bytes = loaded.reduce((sum, { args }) => sum + (args.bytes ?? 0), 0);
    expect(bytes / bytesPerToken(workload)).toBeCloseTo(1, 6);
    expect(loaded.some(({ args }) => (args.stalled_us ?? 0) > 0)).toBe(true);

    for (const track of names.keys()) {
      const own = slices.filter(({ tid }) => tid === track).sort((a, b) => a.ts - b.ts || b.dur - a.dur);
      const open: number[] = [];
      for (const { ts, dur } of own) {
        while (open.length > 0 && open.at(-1)! <= ts + 1e-6) open.pop();
        if (open.length > 0) expect(ts + dur).toBeLessThanOrEqual(open.at(-1)! + 1e-6);
        open.push(ts + dur);
      }
    }
  },
);

it('the timeline of a model of one layer shows that one', () => {
  const preset = defined(findPreset('tinystories-15m'), 'preset').config;
  const one = new PricedProgram({ ...preset, layers: 1, windows: [0] });
  const [separate, looped] = (['layer', 'looped'] as const).map((schedule) =>
    one.workload(machine, { sockets: 1, batch: 1, context: 64, schedule }),
  );
  const lines = timeline(separate!, looped!, machine, 'offloaded', 90);
  expect(lines.some((line) => /^memory .*#/.test(line))).toBe(true);
});

it('the timeline shows an idle memory not looped, and a busy one looped', () => {
  const [separate, looped] = (['layer', 'looped'] as const).map((schedule) =>
    model.workload(machine, { ...point, schedule }),
  );
  const lines = timeline(separate!, looped!, machine, 'offloaded', 90);
  const memory = lines.filter((line) => line.startsWith('memory')).map((line) => /\|(.*)\|/.exec(line)?.[1] ?? '');
  expect(memory).toHaveLength(2);
  const idle = memory.map((row) => row.replaceAll(/\S/g, '').length / row.length);
  expect(idle[0]).toBeGreaterThan(0.5);
  // Between layers it waits for the last results, as published traces show it.
  expect(idle[1]).toBeLessThan(0.12);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(90);
});
