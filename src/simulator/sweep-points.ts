/** Simulating the points of a sweep, in this thread. What cannot be simulated says why instead. */
import { KloopError, messageOf } from '../util/errors.js';
import { TypeMismatch } from '../ops/definition.js';
import { withValues, type Machine } from './machine.js';
import { priceModel, type ModelSpec } from './price.js';
import { simulate } from './simulate.js';
import type { SweepPoint } from './sweep-grid.js';

export interface SweepTask {
  readonly model: ModelSpec;
  readonly machine: Machine;
  readonly points: readonly SweepPoint[];
}

export type SweepResult =
  | {
      readonly tpotUs: number;
      readonly tokensPerSecond: number;
      readonly bandwidthFraction: number;
      readonly callsPerToken: number;
    }
  | { readonly problem: string };

/** `each` is told after every point. */
export function simulatePoints({ model, machine, points }: SweepTask, each: (result: SweepResult) => void): void {
  const priced = priceModel(model);
  for (const point of points) {
    try {
      const changed = Object.keys(point.values).length === 0 ? machine : withValues(machine, point.values);
      const { tpotUs, tokensPerSecond, bandwidthFraction, callsPerToken } = simulate(
        priced.workload(changed, point),
        changed,
        point.orchestration,
      );
      each({ tpotUs, tokensPerSecond, bandwidthFraction, callsPerToken });
    } catch (error) {
      if (!(error instanceof KloopError || error instanceof TypeMismatch)) throw error;
      each({ problem: messageOf(error) });
    }
  }
}
