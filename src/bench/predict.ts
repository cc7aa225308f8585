/** Predict, then measure: what the simulator says of a variant, on this machine as `kloop calibrate` measured it. */
import type { DType, Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Machine } from '../simulator/machine.js';
import { PricedProgram, type PricedModel } from '../simulator/price.js';
import { simulate } from '../simulator/simulate.js';
import { afterPause, atMemoryRate } from '../simulator/working-set.js';
import type { Point } from '../simulator/workload.js';
import type { Result } from './results.js';
import { meanContext } from './workload.js';

export interface Subject {
  readonly config: ModelConfig;
  readonly quant: DType;
  /** Of single matrices, where they differ. */
  readonly formats?: ReadonlyMap<string, DType>;
}

/** Tokens per second of a result; undefined for what the machine file says nothing of: other threads, a peer. */
export type Predict = (result: Result) => number | undefined;

/**
 * Each for the bandwidth that memory gave while it was measured; where that is not known, for that of `measured`.
 * @param chunkRows tokens of a prompt that a step takes in
 */
export function predictorFor({ config, ...formats }: Subject, measured: Machine, chunkRows: number): Predict {
  // In the formats that ran.
  const priced = new PricedProgram(config, { ...formats, compress: false });
  const threads = measured.compute.rowLanes.value;
  return ({ identity, workload, memoryRate }) => {
    if (identity.engine !== 'kloop' || identity.threads !== threads) return undefined;
    const { tokens } = workload;
    const host = memoryRate === null ? measured : atMemoryRate(measured, memoryRate);
    const pointAt = (rows: Pick<Point, 'context' | 'promptTokens'>): Point => {
      return { schedule: identity.schedule as Schedule, sockets: 1, batch: 1, ...rows };
    };
    const stepUs = (point: Point): number => simulate(priced.workload(host, point), host).tpotUs;
    if (workload.kind === 'decode') return 1e6 / stepUs(pointAt({ context: meanContext(workload.depth, tokens) }));
    let us = 0;
    for (let begin = 0; begin < tokens; begin += chunkRows) {
      const promptTokens = Math.min(chunkRows, tokens - begin);
      const point = pointAt({ context: meanContext(begin, promptTokens), promptTokens });
      us += begin === 0 ? firstStepUs(priced, host, point) : stepUs(point);
    }
    return (tokens * 1e6) / us;
  };
}

/** Microseconds of the first step of a prompt, which comes after a pause. */
export function firstStepUs(model: PricedModel, machine: Machine, point: Point): number {
  const idle = afterPause(machine);
  return (idle.call.start?.value ?? 0) + simulate(model.workload(idle, point), idle).tpotUs;
}
