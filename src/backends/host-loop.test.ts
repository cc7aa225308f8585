import { describe, expect, it } from 'vitest';
import { nestedText } from '../../tests/support/nested-program.js';
import { parse } from '../ir/parse.js';
import type { Program } from '../ir/program.js';
import type { ExecutionPlan, SampleSettings, Step } from './backend.js';
import { optionalInputs, runStep, stepInputs, type Arrays, type Launch } from './host-loop.js';

const program = parse(nestedText);
/** As the host sees programs: one `emitted` per token. */
const step: Program = { ...program, outputs: ['emitted'] };
const response: Program = { ...program, outputs: ['emitted.t0', 'emitted.t1', 'emitted.t2'] };

// What is certified is no concern of the host loop.
const planOf = (programs: { step: Program; response?: Program }): ExecutionPlan => programs as unknown as ExecutionPlan;

const settings: SampleSettings = {
  temperature: 0.5,
  topK: 7,
  topP: 0.9,
  minP: 0.1,
  repetitionPenalty: 1.5,
  seed: [1, 0xffffffff],
  remaining: 100,
};

function decode(positions: readonly number[], changes: Partial<Step> = {}): Step {
  return {
    tokens: Int32Array.from(positions, () => 5),
    positions: Int32Array.from(positions),
    slots: Int32Array.from(positions, (_, row) => row),
    index: Int32Array.from(positions, (_, row) => row),
    sampling: positions.map(() => settings),
    stopTokens: [],
    steps: 1,
    ...changes,
  };
}

/** A machine whose tokens are 10 * position + slot, with advance's arithmetic; records what it is given. */
function fake(): { launch: Launch; launches: Record<string, number[]>[]; programs: Program[] } {
  const launches: Record<string, number[]>[] = [];
  const programs: Program[] = [];
  const launch: Launch = (run, inputs, extents) => {
    programs.push(run);
    launches.push(Object.fromEntries([...inputs].map(([name, data]) => [name, [...data]])));
    const get = (name: string): Int32Array => Int32Array.from(inputs.get(name)!);
    const [tokens, positions, remaining, done] = [get('tokens'), get('positions'), get('remaining'), get('done')];
    const stops = get('stop_tokens');
    const outputs = new Map<string, Int32Array | Float32Array>([
      ['last_tokens', tokens],
      ['last_positions', positions],
      ['last_remaining', remaining],
      ['last_done', done],
      ['logits', Float32Array.of(launches.length)],
    ]);
    for (const name of run.outputs) {
      const emitted = new Int32Array(extents.samples);
      outputs.set(name, emitted);
      // What follows the end of the last sample keeps what it had.
      if (done.every((flag) => flag !== 0)) continue;
      for (let s = 0; s < extents.samples; s++) {
        const token = 10 * positions[s]! + get('slots')[s]!;
        emitted[s] = done[s] === 0 ? token : -1;
        if (done[s] !== 0) continue;
        tokens[s] = token;
        remaining[s]!--;
        done[s] = remaining[s]! <= 0 || stops.includes(token) ? 1 : 0;
        positions[s] = done[s] === 1 ? -1 : positions[s]! + 1;
      }
    }
    return Promise.resolve<Arrays>(outputs);
  };
  return { launch, launches, programs };
}

const never = { aborted: (): boolean => false };

describe('runStep', () => {
  it('gives the program exactly its inputs', async () => {
    const { launch, launches } = fake();
    await runStep(planOf({ step }), decode([3, 4], { stopTokens: [7, 8] }), launch, never);
    const f = Math.fround;
    expect(launches).toEqual([
      {
        tokens: [5, 5],
        positions: [3, 4],
        slots: [0, 1],
        index: [0, 1],
        remaining: [1, 1],
        done: [0, 0],
        stop_tokens: [7, 8, ...Array<number>(14).fill(-1)],
        seeds: [1, -1, 1, -1],
        settings: [1, 2].flatMap(() => [0.5, 7, f(0.9), f(0.1), 1.5, 0, 0, 0, 0, 0]),
      },
    ]);
  });

  it('gives biases and masks where a sample has some', () => {
    const bias = [
      [7, 1.5],
      [2, -3],
    ] as const;
    const { sampling, ...rest } = decode([3, 4]);
    const edited = [
      { ...sampling[0]!, bias },
      { ...sampling[1]!, allowed: Int32Array.of(5, 6) },
    ];
    const plain = stepInputs({ ...rest, sampling });
    expect([...optionalInputs].filter((name) => plain.has(name))).toEqual([]);
    const inputs = stepInputs({ ...rest, sampling: edited });
    const rows = (name: string): number[][] => {
      const all = [...inputs.get(name)!];
      return [all.slice(0, all.length / 2), all.slice(all.length / 2)];
    };
    expect(rows('settings').map((row) => row.slice(8))).toEqual([
      [2, 0],
      [0, 1],
    ]);
    expect(rows('biased').map((row) => row.slice(0, 3))).toEqual([
      [7, 2, 0],
      [0, 0, 0],
    ]);
    expect(rows('biases')[0]!.slice(0, 2)).toEqual([1.5, -3]);
    expect(rows('allowed')).toEqual([
      [0, 0],
      [5, 6],
    ]);
  });

  it.each([
    ['token by token', planOf({ step }), 5],
    ['in chunks', planOf({ step, response }), 2],
  ])('makes tokens %s, until the wanted number', async (_, plan, launchCount) => {
    const { launch, launches } = fake();
    const result = await runStep(plan, decode([2, 4], { steps: 5 }), launch, never);
    expect(result.tokens).toEqual([
      [20, 30, 40, 50, 60],
      [41, 51, 61, 71, 81],
    ]);
    // They may go on in another step.
    expect(result.done).toEqual([false, false]);
    expect(launches).toHaveLength(launchCount);
  });

  it.each([
    ['token by token', planOf({ step })],
    ['in chunks', planOf({ step, response })],
  ])('ends samples at stop tokens and limits, %s', async (_, plan) => {
    const { launch } = fake();
    const sampling = [settings, { ...settings, remaining: 2 }, { ...settings, remaining: 0 }];
    const result = await runStep(plan, decode([2, 4, 6], { steps: 9, stopTokens: [50], sampling }), launch, never);
    expect(result.tokens).toEqual([[20, 30, 40, 50], [41, 51], []]);
    expect(result.done).toEqual([true, true, true]);
  });

  it('stops between launches when it is told to, with what there is', async () => {
    const { launch, launches } = fake();
    const aborted = (): boolean => launches.length === 2;
    const result = await runStep(planOf({ step, response }), decode([0], { steps: 9 }), launch, { aborted });
    expect(result).toEqual({ tokens: [[0, 10, 20, 30, 40, 50]], done: [false] });
  });

  it('runs prompt chunks, with samples and without, as a step', async () => {
    const { launch, programs } = fake();
    const plan = planOf({ step, response });
    const chunk = decode([0, 1, 2], { index: Int32Array.of(), sampling: [] });
    expect(await runStep(plan, chunk, launch, never)).toEqual({ tokens: [], done: [] });
    await runStep(plan, decode([3, 4], { index: Int32Array.of(1), sampling: [settings] }), launch, never);
    expect(programs).toEqual([step, step]);
  });

  it('gives the logits of the last token where they are wanted, from a program that has them', async () => {
    const { launch, programs } = fake();
    const result = await runStep(
      planOf({ step, response }),
      decode([0], { steps: 2, wantLogits: true }),
      launch,
      never,
    );
    expect(result.logits).toEqual(Float32Array.of(2));
    expect(programs).toEqual([step, step]);
    expect(await runStep(planOf({ step }), decode([0]), launch, never)).not.toHaveProperty('logits');
  });
});

describe('a step outside the limits is refused:', () => {
  const cases: [string, Step, RegExp][] = [
    ['no rows', decode([]), /0 rows/],
    ['too many rows', decode([0, 0, 0, 0, 0]), /5 rows, compiled for 4/],
    ['a position beyond the context', decode([16]), /outside the context/],
    ['a slot that is not there', decode([0], { slots: Int32Array.of(4) }), /outside the context or slots/],
    ['a sample of no row', decode([0], { index: Int32Array.of(1) }), /a row that is not there/],
    ['arrays of different lengths', decode([0], { slots: Int32Array.of(0, 1) }), /different lengths/],
    ['samples without settings', decode([0], { sampling: [] }), /different lengths/],
    ['seventeen stop tokens', decode([0], { stopTokens: Array<number>(17).fill(1) }), /17 stop tokens/],
    ['no tokens to make', decode([0], { steps: 0 }), /a step of 0 tokens/],
    ['tokens beyond the context', decode([12], { steps: 5 }), /would reach position 17 of 16/],
    [
      'many tokens of a prompt chunk',
      decode([0, 1], { index: Int32Array.of(1), sampling: [settings], steps: 2 }),
      /every row to be a sample/,
    ],
  ];
  it.each(cases)('%s', async (_, wrong, message) => {
    await expect(runStep(planOf({ step }), wrong, fake().launch, never)).rejects.toThrow(message);
  });
});
