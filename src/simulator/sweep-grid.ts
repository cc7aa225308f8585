/** Which points a sweep has: the product of what is varied, as plain data that can be sent to a worker. */
import { schedules, type Schedule } from '../ir/program.js';
import { UsageError } from '../util/errors.js';
import { orchestrations, quantitiesOf, type Machine, type Orchestration } from './machine.js';
import type { Point } from './workload.js';

export interface SweepPoint extends Point {
  readonly orchestration: Orchestration;
  /** Numbers of the machine that are changed, by path. */
  readonly values: Readonly<Record<string, number>>;
}

const maxSweepPoints = 1_000_000;

/**
 * `sockets=1,2,4`, `batch=...`, `context=...`, `schedule=...`, `orchestration=...`, or a number of the machine by path,
 * `memory.bandwidth=1e12,2e12`. @throws UsageError
 */
export function sweepPoints(base: SweepPoint, specs: readonly string[], machine: Machine): SweepPoint[] {
  const axes: Axis[] = [];
  for (const spec of specs) {
    const axis = parseAxis(spec, machine);
    if (axes.some(({ key }) => key === axis.key)) {
      throw new UsageError(`--sweep ${spec}: ${axis.key} is varied already`, { hint: 'give all its values at once' });
    }
    axes.push(axis);
  }
  const count = axes.reduce((product, { values }) => product * values.length, 1);
  if (count > maxSweepPoints) {
    throw new UsageError(`the sweep has ${count} points, at most ${maxSweepPoints} are simulated`);
  }
  let points: SweepPoint[] = [base];
  for (const { key, values } of axes) {
    points = points.flatMap((point) => values.map((value) => withValue(point, key, value)));
  }
  return points;
}

interface Axis {
  readonly key: string;
  /** Distinct. */
  readonly values: readonly (number | string)[];
}

function parseAxis(spec: string, machine: Machine): Axis {
  const [, key = '', list = ''] = /^([^=]+)=(.+)$/.exec(spec) ?? [];
  const texts = list.split(',').map((text) => text.trim());
  const fail = (what: string): never => {
    throw new UsageError(`--sweep ${spec}: ${what}`, { hint: 'write for example --sweep sockets=1,2,4,8' });
  };
  if (key === '' || texts.some((text) => text === '')) fail('needs a name, =, and values with commas between');
  const oneOf = (allowed: readonly string[]): Axis => {
    const wrong = texts.find((text) => !allowed.includes(text));
    return wrong === undefined
      ? { key, values: [...new Set(texts)] }
      : fail(`${wrong} is not one of ${allowed.join(', ')}`);
  };
  const numbers = (accept: (value: number) => boolean, what: string): Axis => {
    const values = [...new Set(texts.map(Number))];
    return values.every(accept) ? { key, values } : fail(`values must be ${what}`);
  };
  switch (key) {
    case 'schedule':
      return oneOf(schedules);
    case 'orchestration':
      return oneOf(orchestrations);
    case 'sockets':
    case 'batch':
    case 'context':
      return numbers((value) => Number.isInteger(value) && value >= 1 && value <= 2 ** 20, 'whole numbers from 1');
    default:
      if (!quantitiesOf(machine).some(({ path }) => path === key)) {
        fail(
          `there is no such thing; vary sockets, batch, context, schedule, orchestration, or a number of the machine`,
        );
      }
      return numbers((value) => Number.isFinite(value) && value >= 0, 'numbers');
  }
}

function withValue(point: SweepPoint, key: string, value: number | string): SweepPoint {
  switch (key) {
    case 'schedule':
      return { ...point, schedule: value as Schedule };
    case 'orchestration':
      return { ...point, orchestration: value as Orchestration };
    case 'sockets':
    case 'batch':
    case 'context':
      return { ...point, [key]: Number(value) };
    default:
      return { ...point, values: { ...point.values, [key]: Number(value) } };
  }
}
