/** One token under every schedule on every machine: where kernels work, and where one ends and the next begins. */
import type { Inspection, MachineTimes, ScheduleTimes } from './api.js';
import { h, svg, type Child } from './dom.js';
import { digits, microseconds, percent } from './units.js';

const width = 1000;
const height = 18;

export function drawBoundaries(view: HTMLElement, inspection: Inspection): void {
  const legend = h(
    'p',
    { class: 'note' },
    'One token, simulated from the same program. ',
    h('span', { class: 'key body' }, 'work'),
    ' ',
    h('span', { class: 'key boundary' }, 'boundary: launch and synchronization'),
  );
  view.replaceChildren(
    h('h3', {}, 'The same token under each schedule'),
    legend,
    ...inspection.machines.map((machine) => machineFigure(machine, inspection.schedule)),
  );
}

function machineFigure({ title, sockets, schedules }: MachineTimes, served: string): HTMLElement {
  const longest = Math.max(...schedules.map(({ token_us }) => token_us));
  const [first, last] = [schedules[0], schedules.at(-1)];
  const gain =
    first && last ? `, ${digits(first.token_us / last.token_us)}× from ${first.schedule} to ${last.schedule}` : '';
  const rows = schedules.map((times) => scheduleRow(times, longest, times.schedule === served));
  const name = sockets === 1 ? title : `${sockets} × ${title}`;
  return h('details', { class: 'machine', open: true }, h('summary', {}, `${name}${gain}`), ...rows);
}

function scheduleRow(times: ScheduleTimes, longestUs: number, served: boolean): HTMLElement {
  const { schedule, calls_per_token: calls, token_us: tokenUs, bandwidth_fraction: share } = times;
  const boundaryUs = times.calls.reduce((sum, [launch, , sync]) => sum + launch + sync, 0);
  const facts = [
    `${digits(calls)} ${calls === 1 ? 'call' : 'calls'}`,
    microseconds(tokenUs),
    `${percent(boundaryUs / tokenUs)} boundary`,
    `${percent(share)} of bandwidth`,
  ].join(' · ');
  const name: Child[] = served ? [h('strong', {}, schedule), ' (served here)'] : [schedule];
  return h(
    'figure',
    {},
    h('figcaption', {}, h('span', {}, ...name), h('span', { class: 'facts' }, facts)),
    bar(times, longestUs, `${schedule}: ${facts}`),
  );
}

function bar({ calls }: ScheduleTimes, longestUs: number, label: string): SVGElement {
  const x = (us: number): number => (us / longestUs) * width;
  let [body, boundary] = ['', ''];
  let at = 0;
  const block = (us: number): string => {
    const path = us > 0 ? `M${x(at).toFixed(2)} 0h${x(us).toFixed(2)}v${height}h${(-x(us)).toFixed(2)}z` : '';
    at += us;
    return path;
  };
  for (const [launch, work, sync] of calls) {
    boundary += block(launch);
    body += block(work);
    boundary += block(sync);
  }
  return svg(
    'svg',
    { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label, class: 'bar' },
    svg('path', { class: 'body', d: body }),
    svg('path', { class: 'boundary', d: boundary }),
  );
}
