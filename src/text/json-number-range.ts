/**
 * Numbers between bounds as a pattern of their decimal digits, without exponents. Numbers of at most 15 digits stay apart
 * and in order as doubles, so that what lies between the bounds digit by digit does so when it is read, too.
 *
 *   0 .. 1     -->   0(?:\.\d{1,14})?|1(?:\.0{1,14})?
 */

export interface NumberRange {
  readonly min: number;
  readonly max: number;
  /** Exclusive. */
  readonly above: number;
  readonly below: number;
}

const digits = 15;
/** Before the point, where a bound is missing. */
const usualDigits = 9;

export function isInside(value: number, { min, max, above, below }: NumberRange): boolean {
  return value >= min && value <= max && value > above && value < below;
}

/**
 * Of the whole number; undefined where there is none with at most 15 digits. With a bound missing it has at most 9 digits
 * before the point, or as many as the other bound.
 */
export function numberPattern(range: NumberRange): string | undefined {
  const beyond = 10 ** digits;
  let [low, high] = [Math.max(range.min, range.above), Math.min(range.max, range.below)];
  if (low >= beyond || high <= -beyond) return undefined;
  if (low <= -beyond) low = -Infinity;
  if (high >= beyond) high = Infinity;
  const given = [low, high].filter(Number.isFinite).map((bound) => Math.trunc(Math.abs(bound)).toFixed(0).length);
  const before = Math.max(1, ...given, ...(given.length < 2 ? [usualDigits] : []));
  const after = digits - before;
  const valueOf = (units: number): number => Number(`${units}e-${after}`);
  const unitsOf = (bound: number): number => Number(bound.toFixed(after).replace('.', ''));
  let first = Number.isFinite(low) ? unitsOf(low) : 1 - beyond;
  let last = Number.isFinite(high) ? unitsOf(high) : beyond - 1;
  if (!isInside(valueOf(first), { ...range, max: Infinity, below: Infinity })) first++;
  if (!isInside(valueOf(last), { ...range, min: -Infinity, above: -Infinity })) last--;
  const choices = [
    ...magnitudes(Math.max(1, -last), -first, after).map((text) => `-${text}`),
    ...magnitudes(Math.max(0, first), last, after),
  ];
  return choices.length === 0 ? undefined : choices.join('|');
}

/** Those from one number of units to another, by how many digits they have before the point. */
function magnitudes(first: number, last: number, after: number): string[] {
  return Array.from({ length: digits - after }, (_, i) => i + 1).flatMap((before) => {
    const low = Math.max(first, before === 1 ? 0 : 10 ** (before - 1 + after));
    const high = Math.min(last, 10 ** (before + after) - 1);
    if (low > high) return [];
    const [from, to] = [low, high].map((units) => units.toFixed(0).padStart(before + after, '0'));
    return [between(from!, to!, before)];
  });
}

/**
 * The texts of so many digits before the point and perhaps some behind it, from `low` to `high`: two rows of digits of the
 * same length. A digit that is left out is 0.
 */
function between(low: string, high: string, before: number): string {
  const length = low.length;
  /** What comes from a digit on, where the digits so far are those of a bound. */
  const rest = (at: number, isLow: boolean, isHigh: boolean): string => {
    if (at === length) return '';
    const more =
      at < before ? digitsFrom(at, isLow, isHigh) : `${at === before ? '\\.' : ''}${digitsFrom(at, isLow, isHigh)}`;
    const mayEnd = at >= before && (!isLow || /^0*$/.test(low.slice(at)));
    return mayEnd ? `(?:${more})?` : more;
  };
  const digitsFrom = (at: number, isLow: boolean, isHigh: boolean): string => {
    if (!isLow && !isHigh) return at < before ? freeWhole(at) : `\\d{1,${length - at}}`;
    const [from, to] = [isLow ? Number(low[at]) : 0, isHigh ? Number(high[at]) : 9];
    const inner = [from + (isLow ? 1 : 0), to - (isHigh ? 1 : 0)] as const;
    const choices: string[] = [];
    if (isLow) choices.push(`${from}${rest(at + 1, true, isHigh && from === to)}`);
    if (inner[0] <= inner[1]) choices.push(`[${inner[0]}-${inner[1]}]${rest(at + 1, false, false)}`);
    if (isHigh && !(isLow && from === to)) choices.push(`${to}${rest(at + 1, false, true)}`);
    return choices.length === 1 ? choices[0]! : `(?:${choices.join('|')})`;
  };
  const freeWhole = (at: number): string => `\\d{${before - at}}${rest(before, false, false)}`;
  return rest(0, true, true);
}
