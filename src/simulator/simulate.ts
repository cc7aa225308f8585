/**
 * A workload on a machine: the time of a token, and where it goes. Kernel calls follow one another, each with its launch
 * (program load, argument load, execute) before and its synchronization over all sockets after it.
 */
import { UsageError } from '../util/errors.js';
import { formatBytes } from '../util/units.js';
import type { Machine, Orchestration } from './machine.js';
import { microsecondsToPs, psToMicroseconds } from './node-times.js';
import { simulatePart, type PartResult } from './simulate-part.js';
import { atWorkingSet } from './working-set.js';
import { bytesPerToken, categories, type Category, type WorkCall, type WorkKernel, type Workload } from './workload.js';

/** Microseconds of one token step; the classes add up to the whole. */
export interface Breakdown {
  /** Round trip to the host. */
  readonly host: number;
  /** Program load, argument load, kernel execute. */
  readonly launch: number;
  /** Memory at work. */
  readonly memory: number;
  /** Memory idle inside a call, before its last load is done. */
  readonly wait: number;
  /** After the last load of a call: last results on their way. */
  readonly drain: number;
  readonly sync: number;
}

export interface SimulatedCall {
  readonly kernel: string;
  readonly layer?: number;
  readonly launchPs: number;
  readonly bodyPs: number;
  readonly syncPs: number;
}

export interface Simulation {
  readonly workload: Workload;
  readonly machine: Machine;
  readonly orchestration: Orchestration;
  readonly tpotUs: number;
  /** Of all sequences of the batch together. */
  readonly tokensPerSecond: number;
  readonly callsPerToken: number;
  /** Weight and state bytes of one socket per token step. */
  readonly bytesPerToken: number;
  /** Of the specified memory bandwidth, over the whole token step. */
  readonly bandwidthFraction: number;
  readonly breakdownUs: Breakdown;
  /** Of what runs inside calls, by what the result waited for. */
  readonly categoriesUs: Readonly<Record<Category, number>>;
  /** Microseconds of all calls of a kernel, launch and synchronization included. */
  readonly kernelsUs: Readonly<Record<string, number>>;
  /** Steady state of the longest loop: time and bytes of an iteration. */
  readonly iterationUs?: number;
  readonly calls: readonly SimulatedCall[];
}

/** @throws UsageError where the machine has too few sockets or too little memory */
export function simulate(
  workload: Workload,
  machine: Machine,
  orchestration: Orchestration = machine.orchestration ?? 'offloaded',
): Simulation {
  const farShare = farShareOf(workload, machine);
  const caching = atWorkingSet(machine, workload.residentBytes);
  const kernels = new Map<WorkKernel, KernelResult>();
  const token = new TokenSum(workload, machine, orchestration);
  for (const call of workload.calls) {
    let result = kernels.get(call.kernel);
    if (result === undefined) {
      result = simulateKernel(call.kernel, caching, farShare);
      kernels.set(call.kernel, result);
    }
    token.add(call, result);
  }
  return token.finish(longestPeriod(kernels));
}

/** The part of the bytes that does not fit the near memory. */
export function farShareOf({ name, sockets, residentBytes }: Workload, machine: Machine): number {
  if (sockets > machine.maxSockets) {
    throw new UsageError(`${machine.name} has at most ${machine.maxSockets} sockets, not ${sockets}`);
  }
  const near = machine.memory.capacity.value;
  const far = machine.farMemory?.capacity.value ?? 0;
  if (residentBytes > near + far) {
    throw new UsageError(
      `${name} needs ${formatBytes(residentBytes)} on each of ${sockets} sockets, ${machine.name} has ${formatBytes(near + far)}`,
      { hint: 'use more sockets, a smaller batch or a shorter context' },
    );
  }
  return Math.max(0, residentBytes - near) / residentBytes;
}

interface KernelResult extends PartResult {
  readonly trip: number;
}

/** Parts run one after another, as often as the kernel repeats them. */
function simulateKernel(kernel: WorkKernel, machine: Machine, farShare: number): KernelResult {
  const parts = kernel.parts.map((part) => ({ part, result: simulatePart(part, machine, farShare) }));
  const sum = (of: (result: PartResult) => number): number =>
    kernel.repeat * parts.reduce((total, { result }) => total + of(result), 0);
  const longest = parts.reduce((a, b) => (b.part.trip > a.part.trip ? b : a));
  return {
    total: sum(({ total }) => total),
    memory: sum(({ memory }) => memory),
    drain: sum(({ drain }) => drain),
    link: sum(({ link }) => link),
    bytes: sum(({ bytes }) => bytes),
    byCategory: mapCategories((category) => sum(({ byCategory }) => byCategory[category])),
    period: longest.result.period,
    trip: longest.part.trip,
  };
}

function mapCategories(value: (category: Category) => number): Record<Category, number> {
  return Object.fromEntries(categories.map((category) => [category, value(category)])) as Record<Category, number>;
}

function longestPeriod(kernels: ReadonlyMap<WorkKernel, KernelResult>): number | undefined {
  let longest: KernelResult | undefined;
  for (const result of kernels.values()) {
    if (result.trip > 1 && result.trip > (longest?.trip ?? 1)) longest = result;
  }
  return longest?.period;
}

class TokenSum {
  private launch = 0;
  private sync = 0;
  private total = 0;
  private memory = 0;
  private drain = 0;
  private readonly byCategory = mapCategories(() => 0);
  private readonly byKernel = new Map<string, number>();
  private readonly calls: SimulatedCall[] = [];

  constructor(
    private readonly workload: Workload,
    private readonly machine: Machine,
    private readonly orchestration: Orchestration,
  ) {}

  add({ kernel, layer }: WorkCall, result: KernelResult): void {
    const launchPs = launchSteps(this.machine, this.orchestration).reduce((sum, { ps }) => sum + ps, 0);
    const syncPs = syncTime(this.machine, kernel, this.workload.sockets);
    this.launch += launchPs;
    this.sync += syncPs;
    this.total += result.total;
    this.memory += result.memory;
    this.drain += result.drain;
    for (const category of categories) this.byCategory[category] += result.byCategory[category];
    this.byKernel.set(kernel.name, (this.byKernel.get(kernel.name) ?? 0) + launchPs + result.total + syncPs);
    this.calls.push({
      kernel: kernel.name,
      ...(layer === undefined ? {} : { layer }),
      launchPs,
      bodyPs: result.total,
      syncPs,
    });
  }

  finish(period: number | undefined): Simulation {
    const { workload, machine, orchestration } = this;
    const us = (ps: number): number => psToMicroseconds(ps) / workload.tokens;
    // One round trip for each chain of calls that the host starts: a token, or a whole response.
    const host = orchestration === 'host' ? us(microsecondsToPs(machine.call.hostRoundTrip.value)) : 0;
    const tpotUs = host + us(this.launch + this.total + this.sync);
    const bytes = bytesPerToken(workload);
    return {
      workload,
      machine,
      orchestration,
      tpotUs,
      tokensPerSecond: (workload.batch * 1e6) / tpotUs,
      callsPerToken: workload.calls.length / workload.tokens,
      bytesPerToken: bytes,
      bandwidthFraction: bytes / (tpotUs * 1e-6) / machine.memory.bandwidth.value,
      breakdownUs: {
        host,
        launch: us(this.launch),
        memory: us(this.memory),
        wait: us(Math.max(0, this.total - this.memory - this.drain)),
        drain: us(this.drain),
        sync: us(this.sync),
      },
      categoriesUs: mapCategories((category) => us(this.byCategory[category])),
      kernelsUs: Object.fromEntries([...this.byKernel].map(([name, ps]) => [name, us(ps)])),
      ...(period === undefined ? {} : { iterationUs: psToMicroseconds(period) }),
      calls: this.calls,
    };
  }
}

/** What the orchestrator does before a kernel runs, in order. */
export function launchSteps(
  { call }: Machine,
  orchestration: Orchestration,
): readonly { readonly name: string; readonly ps: number }[] {
  const host = orchestration === 'host' ? [{ name: 'host launch', us: call.hostLaunch.value }] : [];
  return [
    ...host,
    { name: 'program load', us: call.programLoad.value },
    { name: 'argument load', us: call.argumentLoad.value },
    { name: 'kernel execute', us: call.launch.value },
  ].map(({ name, us }) => ({ name, ps: microsecondsToPs(us) }));
}

/** Sockets that run kernels one after another wait for each other where they exchange something. */
export function syncTime({ call, style }: Machine, kernel: WorkKernel, sockets: number): number {
  const meets =
    style === 'dataflow' || kernel.parts.some(({ nodes }) => nodes.some(({ collective }) => collective !== undefined));
  const doublings = meets ? Math.log2(sockets) : 0;
  return microsecondsToPs(call.sync.value + doublings * call.syncPerDoubling.value);
}
