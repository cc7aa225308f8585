/** Simulations that the figures ask for, each made once. Machines can be replaced, which is how constants are fitted. */
import type { Schedule } from '../../ir/program.js';
import { defined } from '../../util/assert.js';
import type { Machine } from '../machine.js';
import { machines } from '../machines/index.js';
import { findPricedModel, type PricedModel } from '../price.js';
import type { Orchestration } from '../machine.js';
import { simulate, type Simulation } from '../simulate.js';
import type { Workload } from '../workload.js';

export interface Setup {
  readonly model: string;
  readonly machine: string;
  readonly sockets: number;
  readonly schedule: Schedule;
  readonly batch?: number;
  readonly context?: number;
  readonly orchestration?: Orchestration;
  /** Rows of a batch go on to the next operator one by one. */
  readonly batchStreaming?: boolean;
}

export class Lab {
  private readonly simulations = new Map<string, Simulation>();

  /** `models` and `workloads` may be shared: they do not depend on what is fitted. */
  constructor(
    private readonly available: readonly Machine[] = machines,
    private readonly models = new Map<string, PricedModel>(),
    private readonly workloads = new Map<string, Workload>(),
  ) {}

  /** The same, on other machines. */
  with(replaced: Machine): Lab {
    const list = this.available.map((machine) => (machine.name === replaced.name ? replaced : machine));
    return new Lab(list, this.models, this.workloads);
  }

  machine(name: string): Machine {
    return defined(
      this.available.find((machine) => machine.name === name),
      name,
    );
  }

  workload({ model, machine, sockets, schedule, batch = 1, context = 4096 }: Setup): Workload {
    const key = JSON.stringify([model, machine, sockets, schedule, batch, context]);
    let workload = this.workloads.get(key);
    if (workload === undefined) {
      const priced = this.models.get(model) ?? findPricedModel(model);
      this.models.set(model, priced);
      workload = priced.workload(this.machine(machine), { schedule, sockets, batch, context });
      this.workloads.set(key, workload);
    }
    return workload;
  }

  run(setup: Setup): Simulation {
    const key = JSON.stringify(setup);
    let simulation = this.simulations.get(key);
    if (simulation === undefined) {
      const machine = this.machine(setup.machine);
      const lanes = { ...machine.compute.rowLanes, value: Math.max(machine.compute.rowLanes.value, setup.batch ?? 1) };
      const used =
        setup.batchStreaming === true ? { ...machine, compute: { ...machine.compute, rowLanes: lanes } } : machine;
      simulation = simulate(this.workload(setup), used, setup.orchestration);
      this.simulations.set(key, simulation);
    }
    return simulation;
  }
}
