import { setTimeout as wait } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { continuation, FakeExecutable, hashedNext, type FakeOptions } from '../../tests/support/fake-executable.js';
import { resolveSampling } from './sampling.js';
import { Scheduler } from './scheduler.js';
import type { Constraint, Outcome, Request } from './sequence.js';

/** Keeps no process alive. */
const delay = (ms: number): Promise<void> => wait(ms, undefined, { ref: ms < 1000 });

const limits = { rows: 8, samples: 3, slots: 3, context: 64 };

interface Setup {
  readonly executable: FakeExecutable;
  readonly scheduler: Scheduler;
  readonly ask: (slot: number, prompt: readonly number[], maxTokens: number, more?: Partial<Request>) => Asked;
}

interface Asked {
  readonly tokens: number[];
  readonly outcome: Promise<Outcome>;
}

/** The clock stands still, so that the scheduler believes a step takes no time and asks for as many as it may. */
function setUp(options: FakeOptions = {}, now: () => number = () => 0): Setup {
  const executable = new FakeExecutable(options);
  const scheduler = new Scheduler(executable, { limits, now });
  return {
    executable,
    scheduler,
    ask: (slot, prompt, maxTokens, more = {}) => {
      const tokens: number[] = [];
      const outcome = scheduler.submit({
        slot,
        prompt,
        position: 0,
        sampling: resolveSampling({ seed: 1 }),
        maxTokens,
        stopTokens: [],
        onTokens: (made) => {
          tokens.push(...made);
          return true;
        },
        ...more,
      });
      outcome.catch(() => undefined);
      return { tokens, outcome };
    },
  };
}

const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);

describe('Scheduler', () => {
  it('feeds a prompt in chunks and samples only its last row', async () => {
    const { executable, ask } = setUp();
    const prompt = range(20, 19);
    const asked = ask(1, prompt, 1);
    expect(await asked.outcome).toMatchObject({ reason: 'length', filled: 19, prefill: { steps: 3 } });
    expect(executable.steps.map((step) => [...step.tokens])).toEqual([range(20, 8), range(28, 8), range(36, 3)]);
    expect(executable.steps.map((step) => [...step.positions])).toEqual([range(0, 8), range(8, 8), range(16, 3)]);
    expect(executable.steps.map((step) => [...step.index])).toEqual([[], [], [2]]);
    expect(executable.steps.map((step) => step.steps)).toEqual([1, 1, 1]);
    expect([...executable.steps[0]!.slots]).toEqual(Array(8).fill(1));
    expect(asked.tokens).toEqual(continuation(prompt, 1));
  });

  it('lets calls grow until they take about 30 ms, and never asks for more than remains', async () => {
    let nowMs = 0;
    const { executable, ask } = setUp({ afterToken: () => (nowMs += 5) }, () => nowMs);
    const asked = ask(0, [20, 21], 12);
    const { decode, decodeMs, prefillMs } = await asked.outcome;
    // One token from the prompt, one to measure, then 30 ms / 5 ms.
    expect(executable.steps.map((step) => step.steps)).toEqual([1, 1, 6, 4]);
    expect(asked.tokens).toEqual(continuation([20, 21], 12));
    expect(decode).toMatchObject({ steps: 3, tokens: 11, kernelCalls: 44, barriers: 33, bytesRead: 11_000 });
    expect([prefillMs, decodeMs]).toEqual([5, 55]);
  });

  it('asks for at most 32 tokens a call', async () => {
    const { executable, ask } = setUp();
    await ask(0, [20, 21], 50).outcome;
    expect(executable.steps.map((step) => step.steps)).toEqual([1, 1, 32, 16]);
  });

  it('puts prompt chunks and decoding rows of other sequences into one step', async () => {
    const { executable, ask } = setUp();
    const first = ask(0, range(20, 3), 6);
    const second = ask(2, range(40, 12), 3);
    await Promise.all([first.outcome, second.outcome]);
    const [one, two, three] = executable.steps;
    expect([...one!.tokens]).toEqual([20, 21, 22, 40, 41, 42, 43, 44]);
    expect([...one!.index]).toEqual([2]);
    expect([...two!.tokens]).toEqual([continuation(range(20, 3), 1)[0], ...range(45, 7)]);
    expect([...two!.slots]).toEqual([0, ...Array<number>(7).fill(2)]);
    expect([...two!.index]).toEqual([0, 7]);
    expect([...three!.index]).toEqual([0, 1]);
    expect(three!.sampling.map(({ remaining }) => remaining)).toEqual([4, 2]);
    expect(first.tokens).toEqual(continuation(range(20, 3), 6));
    expect(second.tokens).toEqual(continuation(range(40, 12), 3));
  });

  it('ends at stop tokens, also where sequences of a step have different ones', async () => {
    const { ask } = setUp({ next: (context) => (context.length === 9 ? 5 : 100 + context.length) });
    const stopping = ask(0, [20, 21, 22, 23], 30, { stopTokens: [4, 5] });
    const going = ask(1, [30, 31, 32, 33], 12, { stopTokens: [4] });
    expect(await stopping.outcome).toMatchObject({ reason: 'stop', filled: 9 });
    expect(stopping.tokens).toEqual([104, 105, 106, 107, 108, 5]);
    expect(await going.outcome).toMatchObject({ reason: 'length' });
    expect(going.tokens).toEqual([104, 105, 106, 107, 108, 5, 110, 111, 112, 113, 114, 115]);
  });

  it('looks at stop tokens beyond the sixteenth itself', async () => {
    const { executable, ask } = setUp({ next: (context) => context.length });
    const asked = ask(0, [50, 51], 30, { stopTokens: [...range(100, 16), 7] });
    await asked.outcome;
    expect(asked.tokens).toEqual([2, 3, 4, 5, 6, 7]);
    expect(executable.steps.at(-1)!.stopTokens).toHaveLength(16);
  });

  it('ends where the request has enough', async () => {
    const { ask } = setUp();
    const seen: number[] = [];
    const asked = ask(0, [20], 30, { onTokens: (made) => seen.push(...made) < 3 });
    expect(await asked.outcome).toMatchObject({ reason: 'stop' });
    expect(seen).toEqual(continuation([20], seen.length));
  });

  it.each([false, true])('stops a call in which a sequence is aborted (rejecting: %s)', async (rejectAborts) => {
    const controller = new AbortController();
    let tokensMade = 0;
    const { executable, ask } = setUp({
      rejectAborts,
      afterToken: () => {
        if (++tokensMade === 10) controller.abort();
      },
    });
    const aborted = ask(0, [20, 21], 60, { signal: controller.signal });
    const other = ask(1, [30, 31], 20);
    expect(await aborted.outcome).toMatchObject({ reason: 'abort' });
    expect(aborted.tokens).toEqual(continuation([20, 21], rejectAborts ? 2 : 10));
    await other.outcome;
    expect(other.tokens).toEqual(continuation([30, 31], 20));
    expect(executable.aborts).toBe(1);
  });

  it('never runs what was aborted before, and forgets what waits', async () => {
    const { executable, scheduler, ask } = setUp();
    const controller = new AbortController();
    const waiting = ask(0, [20, 21], 5, { signal: controller.signal });
    controller.abort();
    const late = ask(1, [20, 21], 5, { signal: controller.signal });
    expect((await waiting.outcome).reason).toBe('abort');
    expect((await late.outcome).reason).toBe('abort');
    await scheduler.close();
    expect(executable.steps).toEqual([]);
    expect(executable.closed).toBe(true);
  });

  it('gives an error to the sequences of its step and to no other', async () => {
    const { ask } = setUp({
      before: (step) => {
        if (step.tokens.includes(66)) throw new Error('bad row');
      },
    });
    const early = ask(0, range(20, 8), 20);
    // Fills the second step together with a row of the first.
    const broken = ask(1, [66, ...range(80, 6)], 20);
    const later = ask(2, range(30, 3), 5);
    await expect(broken.outcome).rejects.toThrow('bad row');
    await expect(early.outcome).rejects.toThrow('bad row');
    await later.outcome;
    expect(later.tokens).toEqual(continuation(range(30, 3), 5));
    const next = ask(0, [20, 21], 4);
    await next.outcome;
    expect(next.tokens).toEqual(continuation([20, 21], 4));
  });

  it('fails a sequence alone whose receiver throws', async () => {
    const { ask } = setUp();
    const other = ask(1, [30, 31], 6);
    const broken = ask(0, [20, 21], 20, {
      onTokens: () => {
        throw new Error('bad receiver');
      },
    });
    await expect(broken.outcome).rejects.toThrow('bad receiver');
    await other.outcome;
    expect(other.tokens).toEqual(continuation([30, 31], 6));
  });

  it('aborts everything and closes the executable', async () => {
    const { executable, scheduler, ask } = setUp();
    const first = ask(0, [20, 21], 60);
    const second = ask(1, [30, 31], 60);
    await scheduler.close();
    expect((await first.outcome).reason).toBe('abort');
    expect((await second.outcome).reason).toBe('abort');
    expect(executable.closed).toBe(true);
    expect((await ask(2, [1], 1).outcome).reason).toBe('abort');
  });

  it('shows the logits of every token that was asked for, whatever else is in the step', async () => {
    const request = fc.record({
      prompt: fc.array(fc.integer({ min: 10, max: 299 }), { minLength: 1, maxLength: 30 }),
      maxTokens: fc.integer({ min: 1, max: 12 }),
      scores: fc.constantFrom('none', 'made', 'all'),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 3 }), async (requests) => {
        const { ask } = setUp({
          before: ({ index }) => expect(index.length).toBeLessThanOrEqual(limits.samples),
        });
        const seen = requests.map((): [token: number, position: number, best: number][] => []);
        const asked = requests.map(({ prompt, maxTokens, scores }, slot) => {
          const onLogits = (token: number, position: number, logits: Float32Array): void =>
            void seen[slot]!.push([token, position, logits.indexOf(5)]);
          const wanted = scores === 'none' ? {} : { scores: { prompt: scores === 'all', onLogits } };
          return ask(slot, prompt, maxTokens, wanted);
        });
        await Promise.all(asked.map(({ outcome }) => outcome));
        for (const [slot, { prompt, maxTokens, scores }] of requests.entries()) {
          const all = [...prompt, ...continuation(prompt, maxTokens)];
          expect(asked[slot]!.tokens).toEqual(all.slice(prompt.length));
          const from = { none: all.length, made: prompt.length, all: 1 }[scores];
          const places = range(from, all.length - from);
          expect(seen[slot]).toEqual(places.map((at) => [all[at], at, hashedNext(all.slice(0, at))]));
        }
      }),
      { numRuns: 60 },
    );
  });

  describe('a sequence whose tokens are constrained', () => {
    /** Allows only the multiples of `of`, and says so after `ms`. */
    function multiples(
      of: number,
      { ms = 0, most = Infinity, failAt = Infinity } = {},
    ): Constraint & { accepted: number[] } {
      const allowed = new Int32Array(10);
      for (let token = 0; token < 300; token += of) allowed[token >> 5]! |= 1 << (token & 31);
      const accepted: number[] = [];
      const constraint = {
        accepted,
        allowed: undefined as Int32Array | undefined,
        failure: undefined as Error | undefined,
        ready: Promise.resolve(),
        accept(token: number): void {
          accepted.push(token);
          constraint.next();
        },
        next(): void {
          constraint.allowed = undefined;
          constraint.ready = delay(ms).then(() => {
            if (accepted.length >= failAt) constraint.failure = new Error('lost');
            else constraint.allowed = accepted.length >= most ? new Int32Array(10) : allowed;
          });
        },
      };
      constraint.next();
      return constraint;
    }

    it('makes one token per step, each of those that are allowed', async () => {
      const { executable, ask } = setUp();
      const constraint = multiples(7);
      const asked = ask(0, [11, 12], 6, { constraint });
      expect((await asked.outcome).reason).toBe('length');
      expect(asked.tokens.every((token) => token % 7 === 0)).toBe(true);
      expect(constraint.accepted).toEqual(asked.tokens.slice(0, 5));
      expect(executable.steps.map(({ steps }) => steps)).toEqual([1, 1, 1, 1, 1, 1]);
    });

    it('ends where nothing may follow, and alone where its constraint is lost', async () => {
      const { ask } = setUp();
      const complete = ask(0, [11], 9, { constraint: multiples(5, { most: 3 }) });
      const lost = ask(1, [12], 9, { constraint: multiples(5, { failAt: 2 }) });
      const plain = ask(2, [13], 9);
      expect((await complete.outcome).reason).toBe('stop');
      expect(complete.tokens).toHaveLength(3);
      await expect(lost.outcome).rejects.toThrow('lost');
      await plain.outcome;
      expect(plain.tokens).toEqual(continuation([13], 9));
    });

    it('does not hold up the others while it is not known what may follow', async () => {
      const { executable, ask } = setUp();
      const slow = ask(0, [11], 3, { constraint: multiples(5, { ms: 60 }) });
      const plain = ask(1, [13], 40);
      await plain.outcome;
      expect(slow.tokens.length).toBeLessThan(3);
      expect(plain.tokens).toEqual(continuation([13], 40));
      expect(executable.steps.some(({ steps }) => steps > 1)).toBe(true);
      expect((await slow.outcome).reason).toBe('length');
    });

    it('can be stopped while it waits', async () => {
      const { ask } = setUp();
      const controller = new AbortController();
      const asked = ask(0, [11], 3, { constraint: multiples(5, { ms: 1e6 }), signal: controller.signal });
      setTimeout(() => controller.abort(), 10);
      expect((await asked.outcome).reason).toBe('abort');
    });
  });

  describe('where the executable shows tokens while a call runs', () => {
    it('hands them on one by one, in as many calls as before', async () => {
      const seen: number[] = [];
      const setup = setUp({ showsTokens: true, afterToken: () => seen.push(asked.tokens.length) });
      const asked = setup.ask(0, [20, 21], 50);
      const { decode } = await asked.outcome;
      expect(setup.executable.steps.map(({ steps }) => steps)).toEqual([1, 1, 32, 16]);
      // Steps of one token tell it with their end.
      expect(seen).toEqual([0, 1, ...range(3, 48)]);
      expect(setup.executable.listened).toBe(2);
      expect(asked.tokens).toEqual(continuation([20, 21], 50));
      expect(decode).toMatchObject({ steps: 3, tokens: 49, kernelCalls: 196 });
    });

    it('listens to no other', async () => {
      const { executable, ask } = setUp();
      await ask(0, [20, 21], 50).outcome;
      expect(executable.listened).toBe(0);
    });

    it('ends a call that nobody wants more of, and counts what it made', async () => {
      const { executable, ask } = setUp({ showsTokens: true });
      const seen: number[] = [];
      const asked = ask(0, [20, 21], 60, { onTokens: (made) => seen.push(...made) < 7 });
      const { reason, filled, decode } = await asked.outcome;
      expect([reason, filled, seen]).toEqual(['stop', 8, continuation([20, 21], 7)]);
      expect(executable.aborts).toBe(1);
      expect(decode).toMatchObject({ steps: 2, tokens: 6, kernelCalls: 24 });
      const next = ask(0, [20, 21], 40);
      await next.outcome;
      expect(next.tokens).toEqual(continuation([20, 21], 40));
    });

    it('goes on with a call that others want more of', async () => {
      const { executable, ask } = setUp({ showsTokens: true });
      const seen: number[] = [];
      const ended: number[] = [];
      const early = ask(0, [20, 21], 60, { onTokens: (made) => seen.push(...made) < 4 });
      const other = ask(1, [30, 31], 60);
      void early.outcome.then(() => ended.push(other.tokens.length));
      expect((await early.outcome).reason).toBe('stop');
      expect((await other.outcome).reason).toBe('length');
      expect(executable.aborts).toBe(0);
      expect(seen).toEqual(continuation([20, 21], 4));
      expect(other.tokens).toEqual(continuation([30, 31], 60));
      // With the call, not before: its slot is in use until then.
      expect(ended).toEqual([34]);
    });

    it('fails a sequence alone whose receiver throws', async () => {
      const { ask } = setUp({ showsTokens: true });
      const other = ask(1, [30, 31], 20);
      let count = 0;
      const onTokens = (): boolean => {
        if (++count === 5) throw new Error('bad receiver');
        return true;
      };
      await expect(ask(0, [20, 21], 20, { onTokens }).outcome).rejects.toThrow('bad receiver');
      await other.outcome;
      expect(other.tokens).toEqual(continuation([30, 31], 20));
    });

    it.each([false, true])('keeps what was told of a call that is stopped (rejecting: %s)', async (rejectAborts) => {
      const controller = new AbortController();
      let tokensMade = 0;
      const afterToken = (): void => {
        if (++tokensMade === 10) controller.abort();
      };
      const { executable, ask } = setUp({ showsTokens: true, rejectAborts, afterToken });
      const aborted = ask(0, [20, 21], 60, { signal: controller.signal });
      const other = ask(1, [30, 31], 20);
      expect(await aborted.outcome).toMatchObject({ reason: 'abort' });
      expect(aborted.tokens).toEqual(continuation([20, 21], 10));
      await other.outcome;
      expect(other.tokens).toEqual(continuation([30, 31], 20));
      expect(executable.aborts).toBe(1);
    });

    it('makes what it makes otherwise', async () => {
      const request = fc.record({
        prompt: fc.array(fc.integer({ min: 10, max: 299 }), { minLength: 1, maxLength: 20 }),
        maxTokens: fc.integer({ min: 1, max: 40 }),
        stopTokens: fc.array(fc.integer({ min: 10, max: 40 }), { maxLength: 20 }),
        enough: fc.constantFrom(3, 8, 20, 100),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 3 }), async (requests) => {
          const run = async (showsTokens: boolean): Promise<unknown> => {
            const next = (context: readonly number[]): number => hashedNext(context, 60);
            const { ask } = setUp({ showsTokens, next });
            const outcomes = requests.map(async ({ prompt, maxTokens, stopTokens, enough }, slot) => {
              const seen: number[] = [];
              // Where a call has made more than enough, only what was wanted counts, as sessions have it.
              const onTokens = (made: readonly number[]): boolean => {
                seen.push(...made.slice(0, enough - seen.length));
                return seen.length < enough;
              };
              const { reason } = await ask(slot, prompt, maxTokens, { stopTokens, onTokens }).outcome;
              return { seen, reason };
            });
            return Promise.all(outcomes);
          };
          expect(await run(true)).toEqual(await run(false));
        }),
        { numRuns: 80 },
      );
    });
  });

  it('makes the same tokens for any prompts, lengths and neighbours', async () => {
    const request = fc.record({
      prompt: fc.array(fc.integer({ min: 10, max: 299 }), { minLength: 1, maxLength: 30 }),
      maxTokens: fc.integer({ min: 1, max: 30 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 3 }), async (requests) => {
        const { ask } = setUp();
        const asked = requests.map(({ prompt, maxTokens }, slot) => ask(slot, prompt, maxTokens));
        await Promise.all(asked.map(({ outcome }) => outcome));
        const expected = requests.map(({ prompt, maxTokens }) => continuation(prompt, maxTokens));
        expect(asked.map(({ tokens }) => tokens)).toEqual(expected);
      }),
      { numRuns: 60 },
    );
  });
});
