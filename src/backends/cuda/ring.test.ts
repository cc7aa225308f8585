/**
 * The certificate of the ring and of the counters (passes/check-ring.ts): what the emitter prints passes for every model,
 * format, schedule and machine; faults do not. Which faults matter is found by executing the code on a machine of the tests
 * that shares nothing with the certificate.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { modelConfig, modelNames, smallLimits, type ModelName } from '../../../tests/support/models.js';
import { arbitraryRecipe, programOf } from '../../../tests/random-program.js';
import { runRing, type Machine, type Run } from '../../../tests/support/ring-machine.js';
import { print } from '../../ir/print.js';
import { schedules, type DType, type Program, type Schedule } from '../../ir/program.js';
import { checkRing, findRingViolations } from '../../passes/check-ring.js';
import { ScheduleError, type Violation } from '../../passes/check-schedule.js';
import { fuseLayers } from '../../passes/fuse-layers.js';
import { loopCalls } from '../../passes/loop-calls/index.js';
import { packWeights } from '../../passes/pack-weights.js';
import { compileModel } from '../../passes/pipeline.js';
import { pipelineLoops } from '../../passes/pipeline-loops.js';
import { planStages } from '../../passes/plan-stages.js';
import { loopTokens } from '../../passes/response.js';
import type { Ring, RingCode, RingStep } from '../../passes/ring-code.js';
import { emitPrograms } from './emit/program.js';
import { hostTarget, targets, type Target } from './target.js';

/** One program, its code, and the ring. */
interface Certified {
  readonly program: Program;
  readonly codes: readonly RingCode[];
  readonly ring: Ring;
}

function capabilitiesOf({ sharedBytes, sliceBytes }: Target, workers = 3) {
  const memories = [{ name: 'shared memory', bytes: sharedBytes }];
  return { memories, tileBytes: sliceBytes, defaultWorkers: workers, projectionsByHead: false };
}

function certified(programs: readonly Program[], target: Target): Certified {
  const { ring, ringCodes } = emitPrograms(programs, target);
  return { program: programs.at(-1)!, codes: ringCodes.at(-1)!, ring };
}

function model(name: ModelName, schedule: Schedule, formats: DType | 'mixed', target: Target, tokens = 3): Certified {
  const format = formats === 'mixed' ? { formatOf } : { weightFormat: formats };
  const limits = { ...smallLimits, rows: 20 };
  const options = { schedule, limits, capabilities: capabilitiesOf(target), responseTokens: tokens, ...format };
  const { plan } = compileModel(modelConfig(name), options);
  return certified(plan.response === undefined ? [plan.step] : [plan.step, plan.response], target);
}

function formatOf(tensor: string): DType {
  if (/v_proj/.test(tensor)) return 'bf16';
  return /gate|down|o_proj/.test(tensor) ? 'q4_0' : 'q8_0';
}

function violationsOf({ program, codes, ring }: Certified): Violation[] {
  return findRingViolations(program, codes, ring);
}

/** Widths that blocks of 32 divide. */
const quantizable: ReadonlySet<ModelName> = new Set<ModelName>(['mistral']);

describe('what is emitted', () => {
  it.each(modelNames)('is certified: %s', (name) => {
    const formats = quantizable.has(name) ? (['q8_0', 'q4_0', 'mixed'] as const) : (['f32', 'bf16'] as const);
    for (const schedule of schedules) expect(violationsOf(model(name, schedule, formats[0], hostTarget))).toEqual([]);
    for (const [at, target] of targets.entries()) {
      const format = formats[at % formats.length]!;
      expect(violationsOf(model(name, 'response', format, target))).toEqual([]);
    }
  });

  it('is certified with more iterations than are looked at', () => {
    expect(violationsOf(model('gemma2', 'response', 'bf16', hostTarget, 60))).toEqual([]);
  });
});

/** The code with each step replaced by what `edit` returns, inside out. */
function edited(steps: readonly RingStep[], edit: (step: RingStep) => readonly RingStep[]): RingStep[] {
  return steps.flatMap((step) => edit('body' in step ? { ...step, body: edited(step.body, edit) } : step));
}

type Side = 'stream' | 'compute';

/** The code of the last kernel with loops over layers, changed on one side: the n-th step of a kind. */
function changed(
  whole: Certified,
  side: Side,
  kind: RingStep['kind'],
  n: number,
  change: (step: never) => readonly RingStep[],
): Certified {
  let count = 0;
  const codes = whole.codes.map((code) => ({
    ...code,
    [side]: edited(code[side], (step) => (step.kind === kind && count++ === n ? change(step as never) : [step])),
  }));
  expect(count).toBeGreaterThan(n);
  return { ...whole, codes };
}

type Step<K extends RingStep['kind']> = RingStep & { readonly kind: K };

function told(faulty: Certified): string {
  const violations = violationsOf(faulty);
  const check = (): void => checkRing(faulty.program, faulty.codes, faulty.ring);
  if (violations.length > 0) expect(check).toThrow(ScheduleError);
  return violations.map(({ kind, where, detail }) => `${kind} in ${where}: ${detail}`).join('\n');
}

describe('planted faults', () => {
  const whole = model('llama', 'response', 'bf16', hostTarget);
  const drop = (): RingStep[] => [];

  it('a copy that is missing', () => {
    expect(told(changed(whole, 'stream', 'copy', 1, drop))).toMatch(/w_k\.0 for stage \w+: the copy begins at byte/);
    // The last of all.
    const looped = model('llama', 'looped', 'bf16', hostTarget);
    expect(told(changed(looped, 'stream', 'copy', 7, drop))).toMatch(/deadlock in lm_head: w_head .*is never fetched/);
  });

  it('copies in another order', () => {
    const copies = whole.codes.flatMap((code) => stepsOf(code.stream)).filter(({ kind }) => kind === 'copy');
    const swap = changed(whole, 'stream', 'copy', 0, () => [copies[1]!]);
    expect(told(changed(swap, 'stream', 'copy', 1, () => [copies[0]!]))).toMatch(/malformed .*w_q\.0 for stage/);
  });

  it('the stride of another layer', () => {
    const stride = (step: Step<'member'>): RingStep[] => [{ ...step, stride: step.stride + 64 }];
    expect(told(changed(whole, 'stream', 'member', 0, stride))).toMatch(/w_q\.1 for stage \w+: .* begins at byte/);
    const wrongLoop = (step: Step<'member'>): RingStep[] => [{ ...step, over: 'token' }];
    expect(told(changed(whole, 'stream', 'member', 0, wrongLoop))).toMatch(/w_q\.1 for stage/);
  });

  it('a layer more, and a layer less', () => {
    for (const trip of [2, 4]) {
      const layers = (step: Step<'loop'>): RingStep[] => [{ ...step, trip }];
      expect(told(changed(whole, 'stream', 'loop', 0, layers))).toMatch(/malformed|deadlock/);
      expect(told(changed(whole, 'compute', 'loop', 0, layers))).toMatch(/malformed|deadlock/);
    }
  });

  it('parts that leave a tile out, or go beyond the weight', () => {
    const fewer = (step: Step<'within'>): RingStep[] => [{ ...step, count: step.count - 1 }];
    expect(told(changed(whole, 'stream', 'within', 0, fewer))).toMatch(/tiles that are fetched 2, not 3/);
    expect(told(changed(whole, 'compute', 'within', 0, fewer))).toMatch(/tiles that are taken units 0 to 2 of/);
    const more = (step: Step<'part'>): RingStep[] => [{ ...step, total: step.total + 1 }];
    expect(told(changed(whole, 'stream', 'part', 1, more))).toMatch(
      /tiles that are fetched 4, not 3.*read beyond its end/s,
    );
    const later = (step: Step<'within'>): RingStep[] => [{ ...step, first: step.first + 9 }];
    expect(told(changed(whole, 'stream', 'within', 2, later))).toMatch(/part_2: units 13 to 14 of 5/);
  });

  it('slices that do not fit, and sides that cut them differently', () => {
    const small = (step: Step<'take'>): RingStep[] => [{ ...step, sliceBytes: step.sliceBytes - 64 }];
    expect(told(changed(whole, 'compute', 'take', 0, small))).toMatch(/bytes of a slice that is taken 1088, not 1152/);
    expect(told({ ...whole, ring: { ...whole.ring, slotBytes: 1024 } })).toMatch(
      /slices of 1152 bytes in slots of 1024/,
    );
    const rows = (step: Step<'copy'>): RingStep[] => [{ ...step, rows: 'samples' }];
    expect(told(changed(whole, 'stream', 'copy', 3, rows))).toMatch(/rows of the copy samples, not rows/);
  });

  it('a ring that is too small, or does not fit', () => {
    expect(told({ ...whole, ring: { ...whole.ring, slots: 1 } })).toMatch(/early-overwrite in the ring: 1 slots/);
    expect(told({ ...whole, ring: { ...whole.ring, slots: whole.ring.slots + 1 } })).toMatch(/it ends at \d+ of \d+/);
    expect(told({ ...whole, ring: { ...whole.ring, before: 16 } })).toMatch(/do not hold the barriers/);
    expect(told({ ...whole, ring: { ...whole.ring, mostBytes: whole.ring.bytes - 1 } })).toMatch(/are asked for/);
  });

  it('hand-offs that are missing, that not all count, or that are too many for a counter', () => {
    const handOffs = whole.codes
      .flatMap((code) => stepsOf(code.compute))
      .filter(({ kind }) => kind === 'handOff').length;
    const optional: number[] = [];
    for (let n = 0; n < handOffs; n++) {
      const text = told(changed(whole, 'compute', 'handOff', n, drop));
      if (text === '') optional.push(n);
      else expect(text).toMatch(/^(race in \S+: no hand-off lies between|malformed in \S+: the loop over token ends)/);
      expect(told(changed(whole, 'compute', 'handOff', n, (step) => [{ kind: 'apart', body: [step] }]))).toMatch(
        /hand-off \d+ is done by some workers only/,
      );
    }
    // Only those inside stages are not in the plan: shared rows, the largest logits, results of a loop.
    expect(optional.length).toBeLessThan(handOffs / 2);
    const long = changed(whole, 'compute', 'loop', 1, (step: Step<'loop'>) => [{ ...step, trip: 1e6 }]);
    expect(told(long)).toMatch(/a counter of hand-offs ends at \d+, beyond 32 bits/);
  });

  it('a side that fetches and waits for the other', () => {
    const wait = changed(whole, 'stream', 'copy', 2, (step) => [{ kind: 'handOff', place: 0, when: 'always' }, step]);
    expect(told(wait)).toMatch(/deadlock .*waits for more than room/);
  });

  it('matrices behind a loop that may end early', () => {
    const codes = whole.codes.map((code) => {
      const take = stepsOf(code.compute).find(({ kind }) => kind === 'take')!;
      return { ...code, compute: [...code.compute, take] };
    });
    expect(told({ ...whole, codes })).toMatch(/deadlock .*follow a loop that may end early/);
  });

  it('matrices that are taken in another stage', () => {
    const moved: RingStep[] = [];
    const out = changed(whole, 'compute', 'take', 3, (step) => {
      moved.push(step);
      return [];
    });
    const back = changed(out, 'compute', 'take', 2, (step) => [step, moved[0]!]);
    expect(told(back)).toMatch(/matrices of \w+ are taken in another stage/);
  });
});

function stepsOf(steps: readonly RingStep[]): RingStep[] {
  return steps.flatMap((step) => ('body' in step ? [step, ...stepsOf(step.body)] : [step]));
}

/** The ring of a run: as emitted, few slots, so that they are filled again and again. */
const machine: Machine = { workers: 3, slots: 3, slotBytes: hostTarget.sliceBytes, groups: 1 };

/** What differs between two runs of the same call, the second with a fault: undefined where the stages could not tell. */
function harm(sound: Run, faulty: Run): string | undefined {
  if (faulty.fault !== undefined) return faulty.fault;
  if (JSON.stringify(faulty.stages) !== JSON.stringify(sound.stages)) return 'other weights';
  return undefined;
}

/** Pairs of stages that must not overlap: a hand-off between them, in the order in which the sound code goes through them. */
function apartIn(code: RingCode): (pair: string) => boolean {
  const borders: { begin: number; end: number }[] = [];
  let handOffs = 0;
  const visit = (steps: readonly RingStep[]): void => {
    for (const step of steps) {
      if (step.kind === 'handOff' && step.when === 'always') handOffs++;
      if (step.kind === 'loop') for (let i = 0; i < step.trip; i++) visit(step.body);
      if (step.kind !== 'stage') continue;
      const begin = handOffs;
      visit(step.body);
      borders.push({ begin, end: handOffs });
    }
  };
  visit(code.compute);
  return (pair) => {
    const [earlier, later] = pair.split(' ').map((stage) => borders[Number(stage)]!);
    return later!.begin > earlier!.end;
  };
}

describe('the machine of these tests', () => {
  const { codes } = model('mistral', 'response', 'q4_0', hostTarget);
  const code = codes[0]!;
  const mustNotOverlap = apartIn(code);

  it('runs what is emitted, in any order', () => {
    const first = runRing(code, 0, machine, 0);
    expect(first.fault).toBeUndefined();
    expect(first.stages.flatMap(({ taken }) => taken).length).toBeGreaterThan(150);
    for (let seed = 1; seed < 10; seed++) {
      const run = runRing(code, 0, { ...machine, slots: 1 + (seed % 4) }, seed);
      expect(harm(first, run)).toBeUndefined();
      expect([...run.overlaps].filter(mustNotOverlap)).toEqual([]);
    }
  });

  it('sees a slot that is not freed, and a counter that is off by one', () => {
    expect(runRing(code, 0, { ...machine, keeps: 5 }, 1).fault).toBe('nothing goes on');
    expect(runRing(code, 0, { ...machine, extraArrivals: 1 }, 1).fault).toBe('nothing goes on');
    const early = runRing(code, 0, { ...machine, extraArrivals: -1 }, 1);
    expect([...early.overlaps].some(mustNotOverlap)).toBe(true);
  });
});

/** Small programs of all schedules, made by the passes that make those of models. */
const arbitraryCode = fc
  .tuple(arbitraryRecipe, fc.constantFrom(...schedules), fc.integer({ min: 2, max: 4 }))
  .map(([recipe, schedule, tokens]) => {
    // A norm of heads needs the caches of its attention beside it.
    const program = programOf({ ...recipe, wholeBlocks: true });
    const reach = schedules.indexOf(schedule);
    const passes = [fuseLayers, loopCalls, loopTokens(tokens)].slice(0, reach);
    const { memories, tileBytes } = capabilitiesOf(hostTarget);
    const context = { memories, tileBytes, workers: 3, projectionsByHead: false };
    const planned = [...passes, planStages, pipelineLoops, packWeights].reduce(
      (current, pass) => pass(current, context).program,
      program,
    );
    const whole = certified([planned], narrow);
    Object.defineProperty(whole, fc.toStringMethod, { value: () => print(planned) });
    return whole;
  });

/** Slots so small that the matrices of random programs are several slices. */
const narrow: Target = { ...hostTarget, sharedBytes: 12 << 10, sliceBytes: 128 };

/** A change of one step: it is left out, doubled, exchanged with the one before, given to some workers, or a number in it. */
interface Mutation {
  readonly side: Side;
  readonly at: number;
  readonly how: 'drop' | 'double' | 'exchange' | 'apart' | 'number';
  readonly field: number;
  readonly by: number;
}

const arbitraryMutation: fc.Arbitrary<Mutation> = fc.record({
  side: fc.constantFrom('stream' as const, 'compute' as const),
  at: fc.nat({ max: 1000 }),
  how: fc.constantFrom('drop', 'double', 'exchange', 'apart', 'number', 'number'),
  field: fc.nat({ max: 10 }),
  by: fc.constantFrom(-64, -16, -1, 1, 16, 64),
});

function mutated(code: RingCode, { side, at, how, field, by }: Mutation): RingCode {
  const count = stepsOf(code[side]).length;
  let index = 0;
  let before: RingStep | undefined;
  const steps = edited(code[side], (step) => {
    const last = before;
    before = step;
    if (index++ !== at % Math.max(count, 1)) return [step];
    switch (how) {
      case 'drop':
        return [];
      case 'double':
        return [step, step];
      case 'exchange':
        return last === undefined ? [step] : [step, last];
      case 'apart':
        return [{ kind: 'apart', body: [step] }];
      case 'number': {
        const numbers = Object.entries<unknown>({ ...step }).filter(([, value]) => typeof value === 'number');
        const [name, value] = numbers[field % Math.max(numbers.length, 1)] ?? ['place', 0];
        return [{ ...step, [name]: Math.max(0, Number(value) + by) }];
      }
      default:
        return how satisfies never;
    }
  });
  return { ...code, [side]: steps };
}

describe('on random programs', () => {
  it('certifies what is emitted, and no change of it that does harm', () => {
    const found = { harmful: 0, harmless: 0 };
    fc.assert(
      fc.property(arbitraryCode, fc.nat(), arbitraryMutation, fc.nat(), (whole, kernel, mutation, seed) => {
        expect(violationsOf(whole)).toEqual([]);
        const at = kernel % whole.codes.length;
        const code = whole.codes[at]!;
        const changedCode = mutated(code, mutation);
        const small = { ...machine, slotBytes: narrow.sliceBytes };
        const sound = runRing(code, 0, small, seed);
        expect(sound.fault).toBeUndefined();
        const faulty = runRing(changedCode, 0, small, seed);
        const mustNotOverlap = apartIn(code);
        const harmful = harm(sound, faulty) ?? [...faulty.overlaps].find(mustNotOverlap);
        const certifiedAnyway = violationsOf({ ...whole, codes: whole.codes.with(at, changedCode) }).length === 0;
        if (harmful === undefined) found.harmless++;
        else {
          found.harmful++;
          expect(certifiedAnyway, harmful).toBe(false);
        }
      }),
      { numRuns: 100 },
    );
    expect(found.harmful).toBeGreaterThan(20);
    expect(found.harmless).toBeGreaterThan(5);
  });
});
