import { describe, expect, it } from 'vitest';
import { schedules, type DType } from '../../ir/program.js';
import { withValues, type Machine } from '../../simulator/machine.js';
import { findPricedModel, PricedProgram } from '../../simulator/price.js';
import { simulate } from '../../simulator/simulate.js';
import { afterPause } from '../../simulator/working-set.js';
import type { Point } from '../../simulator/workload.js';
import { meanContext } from '../workload.js';
import { allCases, calibrationCases, depth, memoryCases, promptTokens, type Case } from './cases.js';
import { solveMachine, type Observations } from './solve.js';

const formats: readonly DType[] = ['q8_0', 'q4_0', 'bf16'];
const cases = calibrationCases(2, 32 * 2 ** 20, formats);

const memory = {
  title: 'known',
  threads: 2,
  memoryBytes: 16e9,
  cacheBytes: 32 * 2 ** 20,
  nearBytes: 2 ** 20,
  tileBytes: 4096,
  bandwidth: [20e9, 30e9],
  workingSets: [
    { bytes: 2 ** 20, rate: 300e9 },
    { bytes: 2 ** 24, rate: 150e9 },
    { bytes: 2 ** 28, rate: 45e9 },
  ],
  oneThreadRate: 150e9,
} satisfies Partial<Observations>;

/** The wider, the faster. */
const matrixFlops = [1e11, 2e11, 4e11];
/** Of other formats: part of them. */
const parts = { q4_0: 0.8, bf16: 0.4 } as const;

/** In the rounds, when neighbours left a fifth less. */
const roundRate = 24e9;
const memoryRates = new Map(memoryCases(cases).map((one) => [one, [roundRate, roundRate, roundRate]]));

/** A machine whose numbers are known, to be found again from nothing but times. */
function knownMachine(): Machine {
  const us = new Map(allCases(cases).map((one) => [one, [10]]));
  const blank = solveMachine(cases, { ...memory, us, promptUs: us, pausedPromptUs: [10], memoryRates });
  const rate = (value: number) => ({ value, unit: 'B/s', source: 'test', basis: 'measured' }) as const;
  const known = withValues(blank, {
    'latency.linear': 0.2,
    'latency.attention': 0.2,
    'latency.cache': 0.2,
    'latency.elementwise': 0.2,
    'latency.sampling': 4,
    'latency.stage': 0.7,
    'call.launch': 1.5,
    'call.hostRoundTrip': 12,
    'call.start': 300,
    'compute.overlap': 0.7,
  });
  // Caches hold all of the first model that streams, and less and less of the others.
  const streamed = [70e9, 35e9, roundRate];
  const sets = known.memory.workingSets!;
  const workingSets = sets.map((set, i) => {
    const value = streamed[i - (sets.length - streamed.length)];
    return value === undefined ? set : { ...set, bandwidth: rate(value) };
  });
  const matrixRates = known.compute.matrixRates!.map((point, i) => ({
    ...point,
    rate: { ...point.rate, value: matrixFlops[i]! },
  }));
  const partOf = (part: number) =>
    matrixRates.map(({ size, rate: flops }) => ({ size, rate: { ...flops, value: flops.value * part } }));
  return {
    ...known,
    memory: { ...known.memory, workingSets },
    compute: {
      ...known.compute,
      matrixRates,
      formatMatrixRates: { q4_0: partOf(parts.q4_0), bf16: partOf(parts.bf16) },
      weightRates: { q8_0: rate(60e9), q4_0: rate(35e9), bf16: rate(110e9) },
      formatOverlaps: { q4_0: { ...known.compute.overlap!, value: 0.4 } },
    },
  };
}

function observe(machine: Machine): Pick<Observations, 'us' | 'promptUs' | 'pausedPromptUs'> {
  const observed = (one: Case, rows: Pick<Point, 'context' | 'promptTokens'>, paused = false): number[] => {
    const { config, quant, schedule, threads } = one;
    const own = threads === 1 ? withValues(machine, { 'latency.stage': 0 }) : machine;
    const point = { schedule, sockets: 1, batch: 1, ...rows };
    const state = paused ? afterPause(own) : own;
    const { tpotUs } = simulate(new PricedProgram(config, { quant }).workload(state, point), state);
    const us = tpotUs + (paused ? state.call.start!.value : 0);
    // The same noise on all of a round.
    return [us, us + 50, us + 3];
  };
  const all = allCases(cases);
  const prompt = { context: meanContext(0, promptTokens), promptTokens };
  return {
    us: new Map(all.map((one) => [one, observed(one, { context: meanContext(depth, one.tokens) })])),
    promptUs: new Map(all.map((one) => [one, observed(one, prompt)])),
    pausedPromptUs: observed(cases.together.many, prompt, true),
  };
}

describe('solveMachine', () => {
  const known = knownMachine();
  const found = solveMachine(cases, { ...memory, ...observe(known), memoryRates });

  it('finds the numbers that made the times', () => {
    for (const path of ['linear', 'elementwise', 'stage'] as const) {
      expect(found.latency[path].value).toBeCloseTo(known.latency[path].value, 2);
    }
    expect(found.call.launch.value).toBeCloseTo(1.5, 2);
    expect(found.call.hostRoundTrip.value).toBeCloseTo(12, 1);
    // What is added to all of a round counts as its start.
    expect(found.call.start!.value / 303).toBeCloseTo(1, 1);
    expect(found.compute.overlap?.value).toBeCloseTo(0.7, 1);
    expect(found.compute.formatOverlaps?.q4_0?.value).toBeCloseTo(0.4, 1);
    found.compute.matrixRates!.forEach(({ rate: { value } }, i) => expect(value / matrixFlops[i]!).toBeCloseTo(1, 1));
    for (const [format, part] of Object.entries(parts)) {
      found.compute.formatMatrixRates![format as keyof typeof parts]!.forEach(({ rate: { value } }, i) => {
        expect(value / (matrixFlops[i]! * part), format).toBeCloseTo(1, 1);
      });
    }
    expect(found.latency.sampling.basis).toBe('measured');
    const rates = (machine: Machine) => machine.memory.workingSets!.map(({ bandwidth }) => bandwidth.value / 1e9);
    expect(rates(found)).toHaveLength(5);
    rates(known).forEach((rate, i) => expect(rates(found)[i]! / rate).toBeCloseTo(1, 1));
  });

  it('predicts prompts of models that were not measured', () => {
    for (const name of ['tinystories-15m', 'smollm2-135m']) {
      for (const quant of ['q4_0', 'bf16'] as const) {
        const model = findPricedModel(name, quant);
        const point = { schedule: 'looped', sockets: 1, batch: 1, context: 32, promptTokens: 48 } as const;
        const time = (machine: Machine): number => simulate(model.workload(machine, point), machine).tpotUs;
        expect(time(found) / time(known)).toBeCloseTo(1, 1);
      }
    }
  });

  it.each(schedules)('predicts models that were not measured: %s', (schedule) => {
    for (const quant of formats) {
      for (const name of ['tinystories-15m', 'smollm2-135m']) {
        const model = findPricedModel(name, quant);
        const point = { schedule, sockets: 1, batch: 1, context: 72 };
        const time = (machine: Machine): number => simulate(model.workload(machine, point), machine).tpotUs;
        expect(time(found) / time(known)).toBeGreaterThan(0.97);
        expect(time(found) / time(known)).toBeLessThan(1.03);
      }
    }
  });
});
