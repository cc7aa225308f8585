/** Numbers as people read them: three digits, and the unit that fits. */

export function digits(value: number): string {
  return value === 0 ? '0' : Number(value.toPrecision(3)).toLocaleString('en-US', { maximumFractionDigits: 6 });
}

export function bytes(value: number): string {
  const steps = ['B', 'kB', 'MB', 'GB', 'TB'];
  const step = value < 1 ? 0 : Math.min(steps.length - 1, Math.floor(Math.log10(value) / 3));
  return `${digits(value / 1000 ** step)} ${steps[step] ?? 'B'}`;
}

export function microseconds(value: number): string {
  if (value >= 1e6) return `${digits(value / 1e6)} s`;
  return value >= 1000 ? `${digits(value / 1000)} ms` : `${digits(value)} µs`;
}

export function percent(part: number): string {
  return `${digits(part * 100)}%`;
}
