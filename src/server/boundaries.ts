/** What the kernel calls of a token cost under each schedule, simulated: the picture on the page. */
import { schedules, type DType, type Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Machine } from '../simulator/machine.js';
import { PricedProgram } from '../simulator/price.js';
import { simulate, type Simulation } from '../simulator/simulate.js';
import { UsageError } from '../util/errors.js';

/** Plain data, so that a thread can be given it. */
export interface BoundariesTask {
  readonly config: ModelConfig;
  readonly quant: DType;
  /** Of single matrices, where they differ. */
  readonly formats?: ReadonlyMap<string, DType>;
  readonly context: number;
  readonly machines: readonly Machine[];
}

/** The names are a contract with web/src/api.ts. */
export interface MachineTimes {
  readonly name: string;
  readonly title: string;
  readonly sockets: number;
  readonly schedules: readonly ScheduleTimes[];
}

export interface ScheduleTimes {
  readonly schedule: Schedule;
  readonly calls_per_token: number;
  readonly token_us: number;
  readonly tokens_per_second: number;
  readonly bytes_per_token: number;
  readonly bandwidth_fraction: number;
  /** Microseconds of launch, work and synchronization of each call, per token; a call for many tokens has its share. */
  readonly calls: readonly (readonly [launch: number, body: number, sync: number])[];
}

/** Machines on which the model fits, each with as few sockets as it takes. */
export function boundariesOf({ config, context, machines, ...formats }: BoundariesTask): MachineTimes[] {
  const model = new PricedProgram(config, formats);
  return machines.flatMap((machine) => {
    for (let sockets = 1; sockets <= machine.maxSockets; sockets *= 2) {
      try {
        const times = schedules.map((schedule) =>
          timesOf(simulate(model.workload(machine, { schedule, sockets, batch: 1, context }), machine)),
        );
        return [{ name: machine.name, title: machine.title, sockets, schedules: times }];
      } catch (error) {
        // Too large for so few, or not divisible among so many.
        if (!(error instanceof UsageError)) throw error;
      }
    }
    return [];
  });
}

function timesOf({ workload, breakdownUs, calls, ...simulation }: Simulation): ScheduleTimes {
  const us = (ps: number): number => ps / 1e6 / workload.tokens;
  const own = calls.map(({ launchPs, bodyPs, syncPs }) => [us(launchPs), us(bodyPs), us(syncPs)] as const);
  const [first, ...rest] = own;
  // The host's round trip comes before the first call.
  const withHost = first === undefined ? own : [[first[0] + breakdownUs.host, first[1], first[2]] as const, ...rest];
  return {
    schedule: workload.schedule,
    calls_per_token: simulation.callsPerToken,
    token_us: simulation.tpotUs,
    tokens_per_second: simulation.tokensPerSecond,
    bytes_per_token: simulation.bytesPerToken,
    bandwidth_fraction: simulation.bandwidthFraction,
    calls: withHost,
  };
}
