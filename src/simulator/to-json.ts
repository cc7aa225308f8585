/** A simulation as the command line prints it; the names are a contract. */
import type { Simulation } from './simulate.js';

export function simulationJson(simulation: Simulation) {
  const { workload, machine } = simulation;
  return {
    model: workload.name,
    machine: machine.name,
    sockets: workload.sockets,
    schedule: workload.schedule,
    batch: workload.batch,
    context: workload.context,
    orchestration: simulation.orchestration,
    tpot_us: simulation.tpotUs,
    tokens_per_second: simulation.tokensPerSecond,
    bandwidth_fraction: simulation.bandwidthFraction,
    calls_per_token: simulation.callsPerToken,
    bytes_per_token: simulation.bytesPerToken,
    breakdown_us: simulation.breakdownUs,
    operators_us: simulation.categoriesUs,
    kernels_us: simulation.kernelsUs,
    ...(simulation.iterationUs === undefined ? {} : { iteration_us: simulation.iterationUs }),
  };
}
