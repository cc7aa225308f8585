/** What kernel looping will give on a machine, before anything is run, and why: for `explain` and `simulate`. */
import { formatDuration, significant } from '../util/units.js';
import type { Machine, Orchestration } from './machine.js';
import type { PricedModel } from './price.js';
import { simulate, type Simulation } from './simulate.js';
import type { Point } from './workload.js';

/** Below this, a gain is not worth the words. */
const littleGain = 1.1;

/** Two or three sentences. `point` says sockets, batch and context; its schedule does not matter. */
export function loopingAdvice(
  model: PricedModel,
  machine: Machine,
  point: Omit<Point, 'schedule'>,
  orchestration: Orchestration,
): string[] {
  const run = (schedule: Point['schedule']): Simulation =>
    simulate(model.workload(machine, { ...point, schedule }), machine, orchestration);
  const [operator, layer, looped] = [run('operator'), run('layer'), run('looped')];
  const gain = layer.tpotUs / looped.tpotUs;
  const us = (value: number): string => formatDuration(value / 1000);
  const first = layer.calls.find((call) => call.layer !== undefined);
  const lines = [
    `looping the layers on ${point.sockets} x ${machine.title}: ${significant(gain)}x ` +
      `(${us(layer.tpotUs)} to ${us(looped.tpotUs)} per token, simulated); ` +
      `${significant(operator.tpotUs / looped.tpotUs)}x over a call for each operator`,
  ];
  if (first === undefined) return lines;
  const gone = layer.calls.length - looped.calls.length;
  if (gone === 0)
    return [...lines, 'nothing, because no layers share a kernel that could be looped; `kloop explain` says why'];
  const boundary = us((first.launchPs + first.syncPs) / 1e6);
  const body = us(first.bodyPs / 1e6);
  if (gain < littleGain) {
    return [
      ...lines,
      `little, because a layer takes ${body} and the boundary after it only ${boundary}${boundOf(looped)}`,
    ];
  }
  return [
    ...lines,
    `because a layer takes ${body} and the boundary after it ${boundary}; ${gone} of them ${gone === 1 ? 'goes' : 'go'}`,
  ];
}

/** What is left to wait for when the boundaries are gone. */
function boundOf({ breakdownUs, tpotUs }: Simulation): string {
  if (breakdownUs.memory > 0.7 * tpotUs) return '; the memory is busy nearly all the time as it is';
  if (breakdownUs.wait > 0.5 * tpotUs) return '; most of the time is latency and work inside the kernels, which stays';
  return '';
}
