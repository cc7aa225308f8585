/** Certified programs stay certified; planted faults are found, each as what it is. */
import { describe, expect, it } from 'vitest';
import { layeredProgram, matrix, width } from '../../tests/support/layered-program.js';
import { modelConfig, modelNames, smallLimits, type ModelName } from '../../tests/support/models.js';
import {
  schedules,
  type HandOff,
  type Loop,
  type Name,
  type Program,
  type Region,
  type Schedule,
} from '../ir/program.js';
import { parse } from '../ir/parse.js';
import { loopsOf } from '../ir/visit.js';
import { makeOperator as op } from '../ops/make.js';
import { assertChecked, checkSchedule, findViolations, ScheduleError, type Violation } from './check-schedule.js';
import { loopCalls } from './loop-calls/index.js';
import type { PassContext } from './pass.js';
import { compileModel } from './pipeline.js';
import { pipelineLoops } from './pipeline-loops.js';
import { planStages } from './plan-stages.js';

const context: PassContext = { memories: [{ name: 'ram', bytes: 1 << 20 }], tileBytes: 1024, workers: 2 };

function compiled(name: ModelName, schedule: Schedule): Program {
  const options = { schedule, limits: smallLimits, capabilities: { ...context, defaultWorkers: 2 } };
  const { plan } = compileModel(modelConfig(name), options);
  const checked: Program & { certificate?: unknown } = { ...(plan.response ?? plan.step) };
  delete checked.certificate;
  return checked;
}

/** The program with the regions replaced that `edit` returns; loop bodies come with their loop. */
function edited(program: Program, edit: (region: Region, loop?: Loop) => Region | undefined): Program {
  const visit = (region: Region, loop?: Loop): Region => {
    const inner = {
      ...region,
      statements: region.statements.map((statement) =>
        statement.kind === 'loop' ? { ...statement, body: visit(statement.body, statement) } : statement,
      ),
    };
    return edit(inner, loop) ?? inner;
  };
  return { ...program, kernels: program.kernels.map((kernel) => ({ ...kernel, body: visit(kernel.body) })) };
}

/** The same for the loop over layers itself. */
function editedLoop(program: Program, edit: (loop: Loop) => Loop): Program {
  return edited(program, (region) => ({
    ...region,
    statements: region.statements.map((statement) =>
      statement.kind === 'loop' && statement.over === 'layer' ? edit(statement) : statement,
    ),
  }));
}

function layerLoop(program: Program): Loop {
  return program.kernels.flatMap(({ body }) => [...loopsOf(body)]).find(({ over }) => over === 'layer')!;
}

function withHandOffs(program: Program, change: (handOffs: readonly HandOff[], stages: number) => HandOff[]): Program {
  return edited(program, (region, loop) => {
    if (loop?.over !== 'layer' || region.plan === undefined) return undefined;
    const { plan } = region;
    return { ...region, plan: { ...plan, handOffs: change(plan.handOffs, plan.stages.length) } };
  });
}

function kindsOf(program: Program): Violation['kind'][] {
  return [...new Set(findViolations(program).violations.map(({ kind }) => kind))].sort();
}

/** Both the looped program and the response around it. */
const loopedSchedules = ['looped', 'response'] as const;

describe.each(modelNames)('%s', (name) => {
  it.each(schedules)('is certified: %s', (schedule) => {
    expect(findViolations(compiled(name, schedule)).violations).toEqual([]);
  });

  it.each(loopedSchedules)('%s: every hand-off is needed', (schedule) => {
    const program = compiled(name, schedule);
    const count = layerLoop(program).body.plan!.handOffs.length;
    expect(count).toBeGreaterThanOrEqual(4);
    for (let removed = 0; removed < count; removed++) {
      const faulty = withHandOffs(program, (handOffs) => handOffs.toSpliced(removed, 1));
      expect(kindsOf(faulty), `without hand-off ${removed}`).toContain('race');
    }
  });

  it.each(loopedSchedules)('%s: the hand-off over the border of iterations is needed', (schedule) => {
    const faulty = withHandOffs(compiled(name, schedule), (handOffs) =>
      handOffs.filter(({ distance }) => distance === 0),
    );
    expect(kindsOf(faulty)).toContain('race');
    const { violations } = findViolations(faulty);
    expect(violations.every(({ where }) => where.endsWith('/layer'))).toBe(true);
    expect(violations.some(({ detail }) => detail.includes('iteration(s) later'))).toBe(true);
    // It may not come an iteration late either.
    const late = withHandOffs(compiled(name, schedule), (handOffs) =>
      handOffs.map((handOff) => ({ ...handOff, distance: handOff.distance * 2 })),
    );
    expect(kindsOf(late)).toContain('race');
  });

  it('no two neighbouring stages can be one', () => {
    const program = compiled(name, 'looped');
    const { stages } = layerLoop(program).body.plan!;
    for (let at = 0; at + 1 < stages.length; at++) {
      const merged = edited(program, (region, loop) => {
        if (loop?.over !== 'layer' || region.plan === undefined) return undefined;
        const [first, second] = region.plan.stages.slice(at, at + 2);
        const one = { ...first!, statements: first!.statements + second!.statements };
        const shift = (stage: number): number => (stage > at ? stage - 1 : stage);
        const handOffs = region.plan.handOffs
          .filter(({ from, distance }) => from !== at || distance > 0)
          .map(({ from, to, distance }) => ({ from: shift(from), to: shift(to), distance }));
        return { ...region, plan: { ...region.plan, stages: region.plan.stages.toSpliced(at, 2, one), handOffs } };
      });
      expect(kindsOf(merged), `stages ${at} and ${at + 1}`).toContain('race');
    }
  });

  it('nothing else can be replicated', () => {
    const program = compiled(name, 'looped');
    const loop = layerLoop(program);
    const { replicated } = loop.body.plan!;
    const written = loop.body.statements.flatMap((statement) =>
      statement.kind === 'loop' ? [] : Object.values<Name>({ ...statement.writes, ...statement.updates }),
    );
    const others = written.filter((local) => !replicated.includes(local));
    expect(others.length).toBeGreaterThan(4);
    for (const local of others) {
      const faulty = edited(program, (region, around) => {
        if (around?.over !== 'layer' || region.plan === undefined) return undefined;
        return { ...region, plan: { ...region.plan, replicated: [...replicated, local] } };
      });
      expect(kindsOf(faulty), local).toContain('race');
    }
  });
});

/** A loop over tokens of one stage, which does nothing but count. */
const advancing = `program "advancing" schedule response sockets 1
limits rows 4 samples 4 slots 4 context 16

input token: i32[samples] index
input index: i32[samples] index
input positions: i32[samples] index
input remaining: i32[samples] index
input done: i32[samples] index
input stop_tokens: i32[16] index
temporary emitted: i32[3, samples] index

kernel advancing (
  read token: i32[samples] index,
  read index: i32[samples] index,
  read positions: i32[samples] index,
  read remaining: i32[samples] index,
  read done: i32[samples] index,
  read stop_tokens: i32[16] index,
  write emitted: i32[3, samples] index,
) {
  @segment advancing
  for step in 3 (
    invariant read token = token,
    invariant read index = index,
    carried positions = positions then next_positions,
    carried remaining = remaining then next_remaining,
    carried done = done then next_done,
    invariant read stop_tokens = stop_tokens,
    stacked write emitted = emitted[step],
  ) until next_done
  {
    @segment advance
    next_tokens, next_positions, next_remaining, next_done, emitted = advance(token, index, positions, remaining, done, stop_tokens)
  }
}

call advancing(token, index, positions, remaining, done, stop_tokens, emitted)

output emitted
`;

describe('planted faults', () => {
  it('a hand-off that goes back is a deadlock', () => {
    const faulty = withHandOffs(compiled('llama', 'looped'), (handOffs) => [
      ...handOffs,
      { from: 2, to: 1, distance: 0 },
    ]);
    expect(kindsOf(faulty)).toEqual(['deadlock']);
    const self = withHandOffs(compiled('llama', 'looped'), (handOffs) => [
      ...handOffs,
      { from: 2, to: 2, distance: 0 },
    ]);
    expect(kindsOf(self)).toEqual(['deadlock']);
    const past = withHandOffs(compiled('llama', 'looped'), (handOffs) => [
      ...handOffs,
      { from: 0, to: 1, distance: -1 },
    ]);
    expect(kindsOf(past)).toEqual(['deadlock']);
  });

  it('a hand-off between stages that are not there is malformed', () => {
    const faulty = withHandOffs(compiled('llama', 'looped'), (handOffs, stages) => [
      ...handOffs,
      { from: 0, to: stages, distance: 0 },
    ]);
    expect(kindsOf(faulty)).toEqual(['malformed']);
  });

  it('a ring that is not larger than what is ahead overwrites early', () => {
    const faulty = editedLoop(compiled('llama', 'looped'), (loop) => ({
      ...loop,
      pipeline: { ...loop.pipeline!, slots: loop.pipeline!.depth },
    }));
    expect(kindsOf(faulty)).toEqual(['early-overwrite']);
  });

  it('missing plans, pipelines and statements are malformed', () => {
    const program = compiled('llama', 'looped');
    const unplanned = edited(program, ({ statements, segments }, loop) =>
      loop === undefined ? undefined : { statements, segments },
    );
    expect(kindsOf(unplanned)).toEqual(['malformed']);
    const { violations } = findViolations(
      editedLoop(program, ({ kind, over, trip, bindings, body }) => ({ kind, over, trip, bindings, body })),
    );
    expect(violations).toMatchObject([
      { kind: 'malformed', detail: expect.stringContaining('pipelineLoops') as string },
    ]);
    const short = edited(program, (region, loop) => {
      if (loop === undefined || region.plan === undefined) return undefined;
      return { ...region, plan: { ...region.plan, stages: region.plan.stages.slice(1) } };
    });
    expect(kindsOf(short)).toEqual(['malformed']);
  });

  it('stages of less than a statement are malformed', () => {
    const faulty = edited(compiled('llama', 'looped'), (region, loop) => {
      if (loop === undefined || region.plan === undefined) return undefined;
      const [first, ...rest] = region.plan.stages;
      const stages = [{ ...first!, statements: first!.statements + 1 }, { ...first!, statements: -1 }, ...rest];
      return { ...region, plan: { ...region.plan, stages } };
    });
    expect(kindsOf(faulty)).toEqual(['malformed']);
  });

  it('two loops in one stage are malformed, since each is checked alone', () => {
    // Layers of two kinds, one after the other: two loops in the one over tokens.
    const windows = ['full_attention', 'full_attention', 'sliding_attention', 'sliding_attention'];
    const config = modelConfig('qwen2', 'f32', {
      ...{ num_hidden_layers: 4, layer_types: windows, use_sliding_window: true, sliding_window: 4 },
    });
    const capabilities = { ...context, defaultWorkers: 2 };
    const { plan } = compileModel(config, { schedule: 'response', limits: smallLimits, capabilities });
    let merged = 0;
    const faulty = edited(plan.response!, (region, loop) => {
      if (loop?.over !== 'token' || region.plan === undefined) return undefined;
      const at = region.plan.stages.findIndex(({ split }) => split === 'loop');
      const [first, second] = region.plan.stages.slice(at, at + 2);
      expect(second?.split).toBe('loop');
      merged++;
      const shift = (stage: number): number => (stage > at ? stage - 1 : stage);
      const handOffs = region.plan.handOffs
        .filter(({ from, distance }) => from !== at || distance > 0)
        .map(({ from, to, distance }) => ({ from: shift(from), to: shift(to), distance }));
      const stages = region.plan.stages.toSpliced(at, 2, { ...first!, statements: 2 });
      return { ...region, plan: { ...region.plan, stages, handOffs } };
    });
    expect(merged).toBe(1);
    expect(kindsOf(faulty)).toEqual(['malformed']);
  });

  it('what ends a loop must stay until all have looked at it', () => {
    const endingBy = (until: Name): Program => {
      const program = parse(advancing.replace('until next_done', `until ${until}`));
      return [planStages, pipelineLoops].reduce((current, pass) => pass(current, context).program, program);
    };
    // Two copies, used in turn.
    expect(kindsOf(endingBy('next_done'))).toEqual([]);
    // One for each iteration.
    expect(kindsOf(endingBy('emitted'))).toEqual([]);
    // The next iteration writes it where one has it still to read.
    expect(kindsOf(endingBy('next_tokens'))).toEqual(['early-overwrite']);
  });

  it('a buffer that is missing, or too small, or there twice is malformed', () => {
    const program = compiled('llama', 'looped');
    const none = editedLoop(program, (loop) => ({ ...loop, pipeline: { ...loop.pipeline!, buffers: [] } }));
    expect(kindsOf(none)).toContain('malformed');
    const small = editedLoop(program, (loop) => {
      const buffers = loop.pipeline!.buffers.map((buffer) => ({ ...buffer, bytes: buffer.bytes - 1 }));
      return { ...loop, pipeline: { ...loop.pipeline!, buffers } };
    });
    expect(kindsOf(small)).toEqual(['malformed']);
    const twice = editedLoop(program, (loop) => {
      const buffers = loop.pipeline!.buffers.flatMap((buffer) => [{ ...buffer, copies: 1 }, buffer]);
      return { ...loop, pipeline: { ...loop.pipeline!, buffers } };
    });
    expect(kindsOf(twice)).toContain('malformed');
  });

  it('a stream in another order than the reads is malformed', () => {
    const faulty = editedLoop(compiled('llama', 'looped'), (loop) => ({
      ...loop,
      pipeline: { ...loop.pipeline!, stream: [...loop.pipeline!.stream].reverse() },
    }));
    expect(kindsOf(faulty)).toEqual(['malformed']);
  });

  it('heads that cut tiles are a race', () => {
    // Heads of 8, projected in a stage that is divided by heads.
    const faulty = edited(compiled('llama', 'looped'), (region, loop) => {
      if (loop?.over !== 'layer' || region.plan === undefined) return undefined;
      const [qkv, heads, ...rest] = region.plan.stages;
      return { ...region, plan: { ...region.plan, stages: [{ ...qkv!, split: 'heads' }, heads!, ...rest] } };
    });
    expect(
      findViolations(faulty)
        .violations.map(({ detail }) => detail)
        .join(),
    ).toContain('cut tiles');
  });

  it('names every fault in one error', () => {
    const faulty = withHandOffs(compiled('llama', 'looped'), () => []);
    expect(() => checkSchedule(faulty)).toThrow(ScheduleError);
    try {
      checkSchedule(faulty);
    } catch (error) {
      const { violations, message } = error as ScheduleError;
      expect(violations.length).toBeGreaterThan(10);
      expect(message).toMatch(/race in \w+\/layer/);
    }
  });
});

describe('the certificate', () => {
  it('is that of this very program', () => {
    const checked = checkSchedule(compiled('llama', 'looped'));
    assertChecked(checked);
    const [first, ...rest] = checked.kernels;
    const changed = { ...checked, kernels: [{ ...first!, name: 'other' }, ...rest] };
    expect(() => assertChecked(changed)).toThrow(/certified/);
    const unplanned = withHandOffs(checked, () => []) as typeof checked;
    expect(() => assertChecked(unplanned)).toThrow(/certified/);
  });
});

describe('copies of what is carried', () => {
  /** x.(i+1) = x.i . w.i in one stage; or, with `late`, another operator reads x.i after it was replaced. */
  function chain(kind: 'linear' | 'add' | 'late'): Program {
    const program = layeredProgram({
      layers: 3,
      layer: (builder, layer) => {
        const [x, next] = [`x.${layer}`, `x.${layer + 1}`];
        builder.weight(`w.${layer}`, matrix(width, width), `w.${layer}`);
        if (kind === 'linear') return [[op('linear', { x, weight: `w.${layer}` }, { y: next })]];
        if (kind === 'add') return [[op('add', { a: x, b: 'in' }, { y: next })]];
        const state = { dtype: 'f32', shape: [2, 1, 8, width], role: 'state' } as const;
        builder.state(`k.${layer}`, state);
        builder.state(`v.${layer}`, state);
        const positions = { slots: 'slots', positions: 'positions' };
        const update = { keys: `k.${layer}`, values: `v.${layer}` };
        return [
          [op('add', { a: x, b: 'in' }, { y: next }), op('appendKv', { k: x, v: 'in', ...positions }, {}, update)],
        ];
      },
      declare: (builder) => {
        for (const name of ['slots', 'positions'])
          builder.input(name, { dtype: 'i32', shape: ['rows'], role: 'index' });
      },
    });
    const passes = [loopCalls, planStages, pipelineLoops];
    return passes.reduce((current, pass) => pass(current, context).program, program);
  }

  function withCopies(program: Program, copies: number): Program {
    return editedLoop(program, (loop) => {
      const buffers = loop.pipeline!.buffers.map((buffer) => ({ ...buffer, copies }));
      return { ...loop, pipeline: { ...loop.pipeline!, buffers } };
    });
  }

  it('two are enough for any body', () => {
    for (const kind of ['linear', 'add', 'late'] as const) expect(kindsOf(chain(kind))).toEqual([]);
  });

  it('one is not where other parts of the same stage still read it', () => {
    expect(kindsOf(withCopies(chain('linear'), 1))).toContain('early-overwrite');
  });

  it('one is enough where every worker replaces just what it has read', () => {
    expect(kindsOf(withCopies(chain('add'), 1))).toEqual([]);
  });

  it('one is not where a later operator reads it, ordered or not', () => {
    expect(kindsOf(withCopies(chain('late'), 1))).toEqual(['early-overwrite']);
  });

  it('none is malformed', () => {
    expect(kindsOf(withCopies(chain('add'), 0))).toContain('malformed');
  });
});
