/**
 * Small charts as SVG: bars and lines. Colours are CSS variables that follow the reader's light or dark preference, so
 * that one file serves both.
 */
export interface Series {
  readonly name: string;
  readonly values: readonly number[];
}

export interface BarChart {
  readonly title: string;
  readonly unit: string;
  /** May have two lines. */
  readonly groups: readonly string[];
  readonly series: readonly Series[];
  readonly stacked?: boolean;
}

export interface LineChart {
  readonly title: string;
  readonly xTitle: string;
  readonly yTitle: string;
  readonly lines: readonly { readonly name: string; readonly points: readonly (readonly [x: number, y: number])[] }[];
}

const frame = { width: 860, height: 420, left: 70, right: 20, top: 70, bottom: 80 } as const;
const inner = { width: frame.width - frame.left - frame.right, height: frame.height - frame.top - frame.bottom };

const style = `<style>
svg { --ink: #1a1a1a; --quiet: #6a6a6a; --grid: #d8d8d8; --paper: #ffffff;
  --c0: #0b6fb8; --c1: #d9730d; --c2: #2a8a57; --c3: #9b3fa8; --c4: #8a6d1f; --c5: #b8352c; }
@media (prefers-color-scheme: dark) { svg { --ink: #ececec; --quiet: #a8a8a8; --grid: #3c3c3c; --paper: #16181c;
  --c0: #58b0f0; --c1: #f2a04e; --c2: #64c894; --c3: #d08ade; --c4: #d2b45c; --c5: #f0837a; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); } .quiet { fill: var(--quiet); }
.title { font-size: 16px; font-weight: 600; } .small { font-size: 10.5px; }
</style>`;

export function barChart({ title, unit, groups, series, stacked = false }: BarChart): string {
  const totals = groups.map((_, g) => series.reduce((sum, { values }) => sum + (values[g] ?? 0), 0));
  const top = niceTop(Math.max(...(stacked ? totals : series.flatMap(({ values }) => values))));
  const y = (value: number): number => frame.top + inner.height * (1 - value / top);
  const slot = inner.width / groups.length;
  const size = groups.length > 8 ? 'small' : '';
  const parts = [axes(top, unit, y)];
  for (const [g, group] of groups.entries()) {
    const left = frame.left + g * slot + slot * 0.12;
    const room = slot * 0.76;
    let below = 0;
    for (const [s, { values }] of series.entries()) {
      const value = values[g] ?? 0;
      const width = stacked ? room : room / series.length;
      const x = stacked ? left : left + s * width;
      const base = stacked ? below : 0;
      parts.push(rect(x, y(base + value), Math.max(1, width - 2), y(base) - y(base + value), s));
      if (!stacked) parts.push(text(x + width / 2 - 1, y(value) - 5, short(value), 'middle', `quiet ${size}`));
      below += value;
    }
    if (stacked) parts.push(text(left + room / 2, y(below) - 5, short(below), 'middle', 'quiet'));
    const lineHeight = 16;
    group.split('\n').forEach((line, l) => {
      parts.push(text(left + room / 2, frame.height - frame.bottom + 20 + l * lineHeight, line, 'middle', size));
    });
  }
  return document(
    title,
    series.map(({ name }) => name),
    parts,
  );
}

export function lineChart({ title, xTitle, yTitle, lines }: LineChart): string {
  const all = lines.flatMap(({ points }) => points);
  const right = Math.max(...all.map(([x]) => x));
  const top = niceTop(Math.max(...all.map(([, value]) => value)));
  const x = (value: number): number => frame.left + (inner.width * value) / right;
  const y = (value: number): number => frame.top + inner.height * (1 - value / top);
  const parts = [axes(top, yTitle, y)];
  for (const [index, { points }] of lines.entries()) {
    const path = points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(' ');
    parts.push(`<polyline points="${path}" fill="none" stroke="var(--c${index % 6})" stroke-width="2"/>`);
  }
  for (let tick = 0; tick <= 4; tick++) {
    const value = (right * tick) / 4;
    parts.push(text(x(value), frame.height - frame.bottom + 20, short(value), 'middle', 'quiet'));
  }
  parts.push(text(frame.left + inner.width / 2, frame.height - frame.bottom + 40, xTitle, 'middle', 'quiet'));
  return document(
    title,
    lines.map(({ name }) => name),
    parts,
  );
}

function document(title: string, names: readonly string[], parts: readonly string[]): string {
  const legend = names.map((name, index) => {
    const x = frame.left + index * (inner.width / Math.max(4, names.length));
    return `${rect(x, 40, 12, 12, index)}${text(x + 18, 51, name)}`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${frame.width} ${frame.height}" role="img">`,
    `<title>${escape(title)}</title>`,
    style,
    `<rect width="${frame.width}" height="${frame.height}" fill="var(--paper)"/>`,
    text(frame.left, 24, title, 'start', 'title'),
    ...legend,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function axes(top: number, unit: string, y: (value: number) => number): string {
  const lines = [0, 1, 2, 3, 4].map((tick) => {
    const value = (top * tick) / 4;
    const at = y(value).toFixed(1);
    const line = `<line x1="${frame.left}" x2="${frame.width - frame.right}" y1="${at}" y2="${at}" stroke="var(--grid)"/>`;
    return line + text(frame.left - 8, y(value) + 4, short(value), 'end', 'quiet');
  });
  return lines.join('\n') + text(frame.left - 8, frame.top - 10, unit, 'end', 'quiet');
}

function rect(x: number, y: number, width: number, height: number, colour: number): string {
  const box = [x, y, width, Math.max(0, height)].map((value) => value.toFixed(1));
  return `<rect x="${box[0]}" y="${box[1]}" width="${box[2]}" height="${box[3]}" fill="var(--c${colour % 6})"/>`;
}

function text(x: number, y: number, content: string, anchor = 'start', kind = ''): string {
  const classes = kind === '' ? '' : ` class="${kind}"`;
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}"${classes}>${escape(content)}</text>`;
}

function escape(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** The next of 1, 2, 4, 5, 8 times a power of ten. */
function niceTop(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].find((candidate) => candidate * power >= value) ?? 10;
  return step * power;
}
