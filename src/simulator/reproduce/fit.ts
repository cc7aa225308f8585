/**
 * Fits a machine's unknown constants to the calibrated rows, and to nothing else: least squares of the relative errors,
 * by the downhill simplex of Nelder and Mead on the logarithms of the constants. No randomness: the same rows give the
 * same constants.
 */
import { assert, defined } from '../../util/assert.js';
import { withValues, type Machine } from '../machine.js';
import type { Lab } from './lab.js';
import { rows } from './rows.js';

export interface FittedConstant {
  /** Name in machines/fitted.ts. */
  readonly name: string;
  /** Where the search begins, so that the result does not depend on the constants of today. */
  readonly start: number;
  /** Numbers of the machine that it stands for, each times a factor. */
  readonly paths: Readonly<Record<string, number>>;
}

function same(path: string, start: number): FittedConstant {
  return { name: path, start, paths: { [path]: 1 } };
}

/** The division of a boundary among its four steps is a convention: no figure tells them apart. */
const boundary: FittedConstant = {
  name: 'callUs',
  start: 50,
  paths: { 'call.programLoad': 0.4, 'call.argumentLoad': 0.2, 'call.launch': 0.2, 'call.sync': 0.2 },
};

const fittedConstants: Readonly<Record<'sn40l' | 'dgx-h100', readonly FittedConstant[]>> = {
  sn40l: [boundary, same('call.hostRoundTrip', 400), same('memory.efficiency', 0.95)],
  'dgx-h100': [
    same('call.launch', 1.3),
    same('call.syncPerDoubling', 1),
    same('compute.rowBandwidth', 25e9),
    same('latency.attention', 3),
    same('latency.elementwise', 3),
    same('latency.linear', 3),
    same('latency.sampling', 700),
    same('link.latency', 5),
    same('link.perPeer', 0.5),
    same('memory.efficiency', 0.95),
  ],
};

export interface Fit {
  readonly values: Readonly<Record<string, number>>;
  /** Root of the mean squared relative error of the rows. */
  readonly error: number;
}

export function fitMachine(name: 'sn40l' | 'dgx-h100', lab: Lab): Fit {
  const machine = lab.machine(name);
  const constants = fittedConstants[name];
  const targets = rows.filter((row) => row.fits === name);
  assert(
    targets.every(({ kind }) => kind === 'calibrated'),
    'the fit sees calibrated rows only',
  );
  const error = (point: readonly number[]): number => {
    // An efficiency above 1 is no machine.
    const excess = Math.max(0, ...constants.map(({ name: key }, i) => (key === 'memory.efficiency' ? point[i]! : 0)));
    if (excess > 0) return 1 + excess;
    const trial = lab.with(machineAt(machine, constants, point));
    const sum = targets.reduce((total, row) => total + (row.ours(trial) / row.published - 1) ** 2, 0);
    return Math.sqrt(sum / targets.length);
  };
  let best: readonly number[] = constants.map(({ start }) => Math.log(start));
  // A fresh simplex where the last one shrank: the valley is flat along launch gap against synchronization.
  for (let round = 0; round < rounds; round++) best = minimize(error, best);
  const values = Object.fromEntries(
    constants.map((constant, index) => [constant.name, rounded(Math.exp(defined(best[index], 'value')))]),
  );
  const point = constants.map(({ name: key }) => Math.log(defined(values[key], key)));
  return { values, error: error(point) };
}

function machineAt(machine: Machine, constants: readonly FittedConstant[], point: readonly number[]): Machine {
  const values: Record<string, number> = {};
  constants.forEach(({ paths }, index) => {
    const value = Math.exp(defined(point[index], 'value'));
    for (const [path, factor] of Object.entries(paths)) values[path] = value * factor;
  });
  return withValues(machine, values, 'fitted');
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

const maxSteps = 600;
const rounds = 4;

/** Nelder-Mead with the usual coefficients. */
function minimize(f: (point: readonly number[]) => number, start: readonly number[]): readonly number[] {
  const corner = (at: number): number[] => start.map((value, index) => value + (index === at ? 0.2 : 0));
  let simplex = [-1, ...start.keys()].map(corner).map((point) => ({ point, value: f(point) }));
  for (let step = 0; step < maxSteps; step++) {
    simplex = simplex.sort((a, b) => a.value - b.value);
    const best = defined(simplex[0], 'corner');
    const worst = defined(simplex.at(-1), 'corner');
    if (worst.value - best.value < 1e-9) break;
    const others = simplex.slice(0, -1);
    const centre = start.map((_, i) => others.reduce((sum, { point }) => sum + point[i]!, 0) / others.length);
    const along = (t: number): { point: number[]; value: number } => {
      const point = centre.map((value, i) => value + t * (worst.point[i]! - value));
      return { point, value: f(point) };
    };
    let next = along(-1);
    if (next.value < best.value) {
      const further = along(-2);
      if (further.value < next.value) next = further;
    } else if (next.value >= defined(others.at(-1), 'corner').value) {
      next = along(next.value < worst.value ? -0.5 : 0.5);
    }
    if (next.value < worst.value) {
      simplex = [...others, next];
      continue;
    }
    simplex = simplex.map(({ point }) => {
      const shrunk = point.map((value, i) => (value + best.point[i]!) / 2);
      return { point: shrunk, value: f(shrunk) };
    });
  }
  return defined(simplex.sort((a, b) => a.value - b.value)[0], 'corner').point;
}
