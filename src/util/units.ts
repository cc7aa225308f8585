/** Numbers with units, for people: three significant digits, powers of 1000. */

/** At most three significant digits, without an exponent or trailing zeros: 12.34 -> `12.3`, 1234.5 -> `1235`. */
export function significant(value: number): string {
  if (value === 0) return '0';
  const places = Math.min(20, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))));
  const text = value.toFixed(places);
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** `2.5 GB`, `17 B`. */
export function formatBytes(bytes: number): string {
  const [value, prefix] = scaled(bytes, ['', 'k', 'M', 'G', 'T', 'P']);
  return `${value} ${prefix}B`;
}

/** `135M`, `8.03B`: parameters and other large counts. */
export function formatCount(count: number): string {
  return scaled(count, ['', 'K', 'M', 'B', 'T']).join('');
}

function scaled(value: number, prefixes: readonly string[]): [value: string, prefix: string] {
  let rest = value;
  let index = 0;
  while (rest >= 999.5 && index < prefixes.length - 1) {
    rest /= 1000;
    index++;
  }
  return [significant(rest), prefixes[index]!];
}

/** `850 us`, `12.3 ms`, `4.56 s`, `3 min 20 s`. */
export function formatDuration(milliseconds: number): string {
  if (!Number.isFinite(milliseconds)) return 'unknown';
  if (milliseconds < 1) return `${significant(milliseconds * 1000)} us`;
  if (milliseconds < 1000) return `${significant(milliseconds)} ms`;
  if (milliseconds < 100_000) return `${significant(milliseconds / 1000)} s`;
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
