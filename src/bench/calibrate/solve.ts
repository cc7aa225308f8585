/**
 * From measured times to the numbers of a machine file. One number after another is chosen so that the simulation of a
 * small model, or of the difference of two, takes as long as it took; nothing is fitted to what is predicted afterwards.
 */
import type { DType } from '../../ir/program.js';
import { parseMachine, withValues, type Basis, type Machine, type Quantity } from '../../simulator/machine.js';
import { PricedProgram } from '../../simulator/price.js';
import { simulate } from '../../simulator/simulate.js';
import { atMemoryRate, atWorkingSet } from '../../simulator/working-set.js';
import type { Point, Workload } from '../../simulator/workload.js';
import { defined } from '../../util/assert.js';
import { median } from '../../util/statistics.js';
import { firstStepUs } from '../predict.js';
import { meanContext } from '../workload.js';
import {
  depth,
  matrixElements,
  promptTokens,
  type Case,
  type Cases,
  type OverlapFormat,
  type Pair,
  type PromptFormat,
} from './cases.js';
import { hostName } from './host-file.js';

/** Rates in bytes per second. */
export interface Observations {
  readonly title: string;
  readonly threads: number;
  readonly memoryBytes: number;
  readonly cacheBytes: number;
  /** Second-level cache of a core, and unit in which weights stream, as the backend plans with them. */
  readonly nearBytes: number;
  readonly tileBytes: number;
  /** Out of memory, by 1, 2, ... threads. */
  readonly bandwidth: readonly number[];
  /** Of a buffer that is read again and again, by its bytes; in order. */
  readonly workingSets: readonly { readonly bytes: number; readonly rate: number }[];
  /** Of one thread out of its own cache. */
  readonly oneThreadRate: number;
  /** Out of memory by all threads, around each of the cases that depend on it, in every round. */
  readonly memoryRates: ReadonlyMap<Case, readonly number[]>;
  /** Microseconds per token of each case, in every round. */
  readonly us: Times;
  /** Microseconds of a prompt right after another one, of the cases of `prompts`, in every round. */
  readonly promptUs: Times;
  /** The same of `together.many` after a pause. */
  readonly pausedPromptUs: readonly number[];
}

export type Times = ReadonlyMap<Case, readonly number[]>;

/** A machine file. */
export function solveMachine(cases: Cases, seen: Observations): Machine {
  const { us: times } = seen;
  const { many } = cases.together;
  const memoryRate = median([...seen.memoryRates.values()].flat());
  const blank = atMemoryRate(blankMachine(seen), memoryRate);
  const sizes = cases.streamed.map((one) => workloadOf(one, blank).residentBytes);
  const bufferRates = sizes.map((bytes) => atWorkingSet(blank, bytes).memory.bandwidth.value);
  let machine = withStreamedSets(blank, sizes);
  for (const [format, pairs] of cases.prompts) machine = withMatrixCurve(machine, format, pairs.map(matrixElements));
  const search = (at: (us: number) => Machine, time: (machine: Machine) => number, wanted: number): void => {
    machine = at(solve((us) => time(at(us)), wanted));
  };
  const set = (paths: readonly string[], time: (machine: Machine) => number, wanted: number): void => {
    const at = (us: number): Machine =>
      withValues(machine, Object.fromEntries(paths.map((path) => [path, us])), 'measured');
    search(at, time, wanted);
  };
  const between = (a: Case, b: Case) => (m: Machine) => simulated(a, m) - simulated(b, m);
  const steady = (one: Case): number => median(steadyTimes(seen, one, memoryRate));

  // Each depends a little on those after it.
  for (let pass = 0; pass < passes; pass++) {
    // One thread waits for nobody: what its layers cost is their operators.
    set(operatorPaths, (m) => simulatedLayer(cases.alone, m), perLayer(times, cases.alone));
    set(['latency.stage'], (m) => simulatedLayer(cases.together, m), perLayer(times, cases.together));
    set(['call.launch'], between(cases.calls, many), more(times, cases.calls, many));
    set(['call.hostRoundTrip'], between(many, cases.response), more(times, many, cases.response));
    for (const [format, pair] of cases.formats) {
      search(
        (us) => withRate(machine, format, us),
        (m) => simulatedLayer(pair, m),
        perLayer(times, pair),
      );
    }
    for (const [format, pairs] of cases.prompts) {
      pairs.forEach((pair, index) => {
        search(
          (us) => withMatrixRate(machine, format, index, 1e9 / (Math.max(us, leastUs) * 1e-6)),
          (m) => simulatedLayer(pair, m, 'prompt'),
          perLayer(seen.promptUs, pair),
        );
      });
    }
    set(['call.start'], (m) => simulated(many, m, 'paused prompt'), median(seen.pausedPromptUs));
    // What is left of a token outside of its layers.
    set(['latency.sampling'], (m) => simulated(many, m), median(timesOf(times, many)));
    // The largest comes from memory, the others at the rate of their working set, not faster than a buffer of this size.
    cases.streamed.slice(0, -1).forEach((one, index) => {
      const at = (us: number): Machine =>
        withSetRate(machine, sizes[index]!, Math.min(1e6 / (us * 1e-6), bufferRates[index]!));
      search(at, (m) => simulated(one, m), steady(one));
    });
    for (const [format, one] of cases.overlapped) {
      search(
        (us) => withOverlap(machine, format, 1 - us),
        (m) => simulated(one, m),
        steady(one),
      );
    }
  }
  return machine;
}

const passes = 10;
const operatorPaths = ['latency.linear', 'latency.attention', 'latency.cache', 'latency.elementwise'];

/** Memory gave in a round what it usually gave, within this part of it. */
const steadyWithin = 0.15;

/** Times of the rounds in which memory gave what it gave in the median of all cases; of all rounds, where it never did. */
function steadyTimes({ us, memoryRates }: Observations, one: Case, rate: number): readonly number[] {
  const rates = defined(memoryRates.get(one), 'memory rates of a case');
  const times = timesOf(us, one);
  const usual = times.filter((_, round) => Math.abs(rates[round]! / rate - 1) <= steadyWithin);
  return usual.length > 0 ? usual : times;
}

function timesOf(times: Times, one: Case): readonly number[] {
  return defined(times.get(one), 'times of a case');
}

/** How much longer `a` takes than `b`. In the same round: what slows the machine for a moment slows both. */
function more(times: Times, a: Case, b: Case): number {
  const of = timesOf(times, b);
  return median(timesOf(times, a).map((us, round) => us - of[round]!));
}

function perLayer(times: Times, pair: Pair): number {
  return more(times, pair.many, pair.few) / layersBetween(pair);
}

/** Between these many microseconds everything is looked for; nothing takes no time. */
const leastUs = 1e-6;
const mostUs = 1e6;

/** Where a time that grows with `us` reaches `wanted`; 0 where it is longer from the start. */
function solve(time: (us: number) => number, wanted: number): number {
  if (time(leastUs) >= wanted) return 0;
  let [low, high] = [leastUs, mostUs];
  while (high / low > 1.0001) {
    const middle = Math.sqrt(low * high);
    if (time(middle) < wanted) low = middle;
    else high = middle;
  }
  return low;
}

/** Compiled once: a search simulates a case many times. */
const programs = new WeakMap<Case, PricedProgram>();

/** What is simulated of a case: one of the tokens that it makes, or the prompt, also after a pause. */
type Step = 'token' | 'prompt' | 'paused prompt';

function programOf(one: Case): PricedProgram {
  const program = programs.get(one) ?? new PricedProgram(one.config, { quant: one.quant, compress: false });
  programs.set(one, program);
  return program;
}

function pointOf({ schedule, tokens }: Case, step: Step): Point {
  const rows =
    step === 'token'
      ? { context: meanContext(depth, tokens) }
      : { context: meanContext(0, promptTokens), promptTokens };
  return { schedule, sockets: 1, batch: 1, ...rows };
}

function workloadOf(one: Case, machine: Machine, step: Step = 'token'): Workload {
  return programOf(one).workload(machine, pointOf(one, step));
}

/** Microseconds per token, or of the prompt. */
function simulated(one: Case, machine: Machine, step: Step = 'token'): number {
  // The hand-off is between threads.
  const own = one.threads === 1 ? withValues(machine, { 'latency.stage': 0 }) : machine;
  if (step === 'paused prompt') return firstStepUs(programOf(one), own, pointOf(one, step));
  return simulate(workloadOf(one, own, step), own).tpotUs;
}

function simulatedLayer(pair: Pair, machine: Machine, step: Step = 'token'): number {
  return (simulated(pair.many, machine, step) - simulated(pair.few, machine, step)) / layersBetween(pair);
}

function layersBetween({ few, many }: Pair): number {
  return many.config.layers - few.config.layers;
}

/** With a rate at which a megabyte of the format takes `us`. */
function withRate(machine: Machine, format: DType, us: number): Machine {
  const source = 'layers that the last-level cache holds, less what operators and hand-offs take';
  // Nothing is worked on faster than the smallest of caches gives it.
  const value = Math.min(1e6 / (us * 1e-6), machine.onChip.bandwidth.value);
  const rate = quantity(value, 'B/s', 'measured', source);
  return {
    ...machine,
    compute: { ...machine.compute, weightRates: { ...machine.compute.weightRates, [format]: rate } },
  };
}

/** With working sets of these sizes in the place of buffers as large; the last one is all from memory. */
function withStreamedSets(machine: Machine, sizes: readonly number[]): Machine {
  const { memory } = machine;
  const smaller = (memory.workingSets ?? []).filter(({ size }) => size.value < sizes[0]!);
  const streamed = sizes.map((bytes) => ({
    size: quantity(bytes, 'B', 'inferred', 'size of a model that was timed'),
    bandwidth: quantity(memory.bandwidth.value, 'B/s', 'measured', 'a model of this size, less all else'),
  }));
  return { ...machine, memory: { ...memory, workingSets: [...smaller, ...streamed] } };
}

/** With a working set of this size that reaches a rate. */
function withSetRate(machine: Machine, bytes: number, value: number): Machine {
  const { memory } = machine;
  const workingSets = memory.workingSets?.map((set) =>
    set.size.value === bytes ? { ...set, bandwidth: { ...set.bandwidth, value } } : set,
  );
  return { ...machine, memory: { ...memory, ...(workingSets === undefined ? {} : { workingSets }) } };
}

type MatrixRates = NonNullable<Machine['compute']['matrixRates']>;

/** With a rate of arithmetic for matrices of these many elements. */
function withMatrixCurve(machine: Machine, format: PromptFormat, sizes: readonly number[]): Machine {
  const { peak } = machine.compute;
  const rates = sizes.map((elements) => ({
    size: quantity(elements, '1', 'derived', 'of a matrix of the layers that were timed, on average'),
    rate: { ...peak, source: `a prompt of ${promptTokens} tokens in ${format} layers of such matrices, less all else` },
  }));
  return withMatrixRates(machine, format, rates);
}

/** With another one of them; the last one of quantized weights is the peak, too. */
function withMatrixRate(machine: Machine, format: PromptFormat, index: number, value: number): Machine {
  const { peak, matrixRates = [], formatMatrixRates } = machine.compute;
  const rates = format === 'q8_0' ? matrixRates : (formatMatrixRates?.[format] ?? []);
  const changed = rates.map((point, i) => (i === index ? { ...point, rate: { ...point.rate, value } } : point));
  const result = withMatrixRates(machine, format, changed);
  if (format !== 'q8_0' || index < rates.length - 1) return result;
  return { ...result, compute: { ...result.compute, peak: { ...peak, value } } };
}

/** Those of q8_0 are those of all formats but q4_0 and numbers with an exponent, which are timed as bf16. */
function withMatrixRates(machine: Machine, format: PromptFormat, rates: MatrixRates): Machine {
  const { compute } = machine;
  if (format === 'q8_0') return { ...machine, compute: { ...compute, matrixRates: rates } };
  const own = format === 'q4_0' ? { q4_0: rates } : { bf16: rates, bf16z: rates, f16: rates, f32: rates };
  return { ...machine, compute: { ...compute, formatMatrixRates: { ...compute.formatMatrixRates, ...own } } };
}

/** That of q8_0 is that of all other formats. */
function withOverlap({ compute, ...machine }: Machine, format: OverlapFormat, hidden: number): Machine {
  const source = `a model in ${format} that no cache holds`;
  const overlap = quantity(Math.min(1, Math.max(leastUs, hidden)), '1', 'measured', source);
  if (format === 'q8_0') return { ...machine, compute: { ...compute, overlap } };
  const formatOverlaps = { ...compute.formatOverlaps, [format]: overlap };
  return { ...machine, compute: { ...compute, formatOverlaps } };
}

function quantity<U extends string>(value: number, unit: U, basis: Basis, source: string): Quantity<U> {
  return { value, unit, source, basis };
}

/** All that is read off, and nothing that is solved for. */
function blankMachine(seen: Observations): Machine {
  const measured = <U extends string>(value: number, unit: U, source: string): Quantity<U> =>
    quantity(value, unit, 'measured', source);
  const none = (source: string): Quantity<'us'> => quantity(0, 'us', 'inferred', source);
  const operator = measured(0, 'us', 'narrow layers by one thread, less their bytes; all operators alike');
  const { threads } = seen;
  const byThreads = seen.bandwidth.map((rate, i) => `${i + 1}: ${(rate / 1e9).toFixed(1)} GB/s`).join(', ');
  const smallest = defined(seen.workingSets[0], 'working set');
  return parseMachine(
    {
      name: hostName,
      title: seen.title,
      style: 'sequential',
      maxSockets: 1,
      orchestration: 'host',
      memory: {
        bandwidth: measured(
          defined(seen.bandwidth.at(-1), 'bandwidth'),
          'B/s',
          `reading a buffer that no cache holds, around the models; before, by threads ${byThreads}`,
        ),
        efficiency: quantity(1, '1', 'inferred', 'what models get less is in the overlap of loading and arithmetic'),
        latency: none('hidden by prefetching'),
        capacity: measured(seen.memoryBytes, 'B', 'as the system tells'),
        workingSets: seen.workingSets.map(({ bytes, rate }) => ({
          size: measured(bytes, 'B', 'size of the buffer'),
          bandwidth: measured(rate, 'B/s', `read again and again, by ${threads} threads`),
        })),
      },
      onChip: {
        capacity: quantity(seen.nearBytes * threads, 'B', 'inferred', 'second-level caches, as prefetching plans'),
        bandwidth: measured(smallest.rate, 'B/s', 'the smallest of the working sets'),
        tile: quantity(seen.tileBytes, 'B', 'inferred', 'unit in which weights are prefetched'),
      },
      compute: {
        peak: measured(1e11, 'FLOP/s', 'a prompt in the widest layers, less all else'),
        usable: quantity(1, '1', 'inferred', 'the rate is measured'),
        rowTile: quantity(1, '1', 'inferred', 'rows are not padded'),
        rowLanes: quantity(threads, '1', 'inferred', 'a row for each thread'),
        rowBandwidth: measured(seen.oneThreadRate, 'B/s', 'one thread, out of its own cache'),
        headBandwidth: measured(seen.oneThreadRate, 'B/s', 'one thread, out of its own cache'),
      },
      latency: {
        linear: operator,
        attention: operator,
        cache: operator,
        elementwise: operator,
        sampling: measured(0, 'us', 'a token of small layers, less all else'),
        stage: measured(0, 'us', `layers that ${threads} threads share, less their operators and bytes`),
      },
      call: {
        programLoad: none('code stays loaded'),
        argumentLoad: none('contained in the launch'),
        launch: measured(0, 'us', 'schedule operator, less looped'),
        sync: none('contained in the launch'),
        syncPerDoubling: none('one socket'),
        hostLaunch: none('contained in the launch'),
        hostRoundTrip: measured(0, 'us', 'schedule looped, less response'),
        start: measured(0, 'us', 'a prompt of small layers after a pause, less all else'),
      },
      link: {
        bandwidth: quantity(1e9, 'B/s', 'inferred', 'one socket: never used'),
        latency: none('one socket'),
        perPeer: none('one socket'),
        algorithms: ['ring'],
        collectives: 'alone',
      },
    },
    hostName,
  );
}
