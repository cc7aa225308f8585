/**
 * Turns the requests of all sessions into steps of one executable, one step at a time (continuous batching). It knows
 * rows, slots and the interface of backends, and nothing of models or text.
 */
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import type { Executable, StepResult, TokenListener } from '../backends/backend.js';
import type { Limits } from '../ir/program.js';
import { assert, defined } from '../util/assert.js';
import { AbortedError } from '../util/errors.js';
import { planStep, type PlannedStep } from './plan-step.js';
import { Sequence, type Outcome, type Request } from './sequence.js';
import { StepSize } from './step-size.js';
import { noUsage, readCounters, usageBetween, type Usage } from './usage.js';

export interface SchedulerOptions {
  /** `rows` is at least `slots`. */
  readonly limits: Limits;
  /** Clock in milliseconds. */
  readonly now?: () => number;
}

/** Milliseconds that a step waits for those whose next token is still being constrained. */
const patienceMs = 5;

interface RunningStep extends PlannedStep {
  abortCalled: boolean;
  /** Of every sample, how many tokens were handed on before the step ended. */
  readonly told: number[];
}

export class Scheduler {
  readonly #executable: Executable;
  readonly #limits: Limits;
  readonly #now: () => number;
  readonly #stepSize = new StepSize();
  #sequences: Sequence[] = [];
  #running: RunningStep | undefined;
  #loop: Promise<void> | undefined;
  #closed = false;
  #ended = false;

  constructor(executable: Executable, { limits, now = () => performance.now() }: SchedulerOptions) {
    assert(limits.rows >= limits.slots && limits.samples >= limits.slots, 'a step must hold a row of every slot');
    this.#executable = executable;
    this.#limits = limits;
    this.#now = now;
  }

  /** Runs a request to its end. Rejects with what the executable threw, where it failed in a step of this request. */
  submit(request: Request): Promise<Outcome> {
    const sequence = new Sequence(request, this.#now);
    const { signal } = request;
    if (this.#closed || signal?.aborted === true) {
      sequence.finish('abort');
      return sequence.outcome;
    }
    const onAbort = (): void => this.#abort(sequence);
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#sequences.push(sequence);
    this.#loop ??= this.#run();
    return sequence.outcome.finally(() => signal?.removeEventListener('abort', onAbort));
  }

  /** Closed to the end: what was running has been told. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Aborts all requests, waits until the executable is idle, and closes it. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sequence of [...this.#sequences]) this.#abort(sequence);
    await this.#loop;
    await this.#executable.close();
    this.#ended = true;
  }

  async #run(): Promise<void> {
    for (;;) {
      // Lets signals, timers and output through, and requests made together start together.
      await nextTurn();
      if (this.#sequences.length === 0) break;
      const able = await this.#ableSequences();
      if (able.length > 0) await this.#step(planStep(able, this.#limits, this.#stepSize.next()));
      this.#sequences = this.#sequences.filter((sequence) => !sequence.ended);
    }
    this.#loop = undefined;
  }

  /** Those that can take part in a step. Who is not ready in a moment does not hold up the others. */
  async #ableSequences(): Promise<readonly Sequence[]> {
    const pending = this.#sequences.flatMap((sequence) => sequence.pending ?? []);
    if (pending.length > 0) await Promise.race([Promise.all(pending), delay(patienceMs)]);
    for (const sequence of this.#sequences) sequence.obeyConstraint();
    return this.#sequences.filter((sequence) => !sequence.ended && sequence.pending === undefined);
  }

  async #step(planned: PlannedStep): Promise<void> {
    const running: RunningStep = { ...planned, abortCalled: false, told: planned.step.sampling.map(() => 0) };
    const { step, parts } = running;
    this.#running = running;
    const before = readCounters(this.#executable.counters);
    const startMs = this.#now();
    try {
      const result = await this.#executable.run(step, this.#listenerFor(running));
      const { tokens } = result;
      const made = tokens.reduce((sum, list) => sum + list.length, 0);
      if (step.index.length === step.tokens.length) {
        this.#stepSize.record(Math.max(...tokens.map((list) => list.length)), this.#now() - startMs);
      }
      distribute(running, result, usageBetween(before, readCounters(this.#executable.counters), made));
    } catch (error) {
      if (error instanceof AbortedError && running.abortCalled) {
        // An abort that shows as an error made nothing beyond what was told; the other sequences of the step try again.
        for (const { sequence } of parts) sequence.endStep(noUsage);
      } else {
        for (const { sequence } of parts) sequence.fail(error);
      }
    } finally {
      this.#running = undefined;
    }
    for (const { sequence } of parts) if (sequence.aborted && !sequence.ended) sequence.finish('abort');
  }

  /**
   * Hands tokens on while the call runs that makes them, where the machine shows them, and ends the call when nobody wants
   * more of it. Steps of one token end with it: they have nothing to tell before.
   */
  #listenerFor(running: RunningStep): TokenListener | undefined {
    const { told, parts } = running;
    const { steps, sampling, stopTokens } = running.step;
    if (!this.#executable.showsTokens || steps === 1) return undefined;
    const partOf = new Map(parts.map((part) => [part.sample, part]));
    // Samples that the executable knows to have ended.
    const done = sampling.map(() => false);
    return (sample, token) => {
      told[sample]!++;
      done[sample] = stopTokens.includes(token) || told[sample]! >= Math.min(steps, sampling[sample]!.remaining);
      const { sequence } = defined(partOf.get(sample), 'the sequence of a sample');
      try {
        sequence.take([token]);
      } catch (error) {
        sequence.fail(error);
      }
      if (running.abortCalled || done.every(Boolean) || !parts.every((part) => part.sequence.satisfied)) return;
      running.abortCalled = true;
      this.#executable.abort();
    };
  }

  #abort(sequence: Sequence): void {
    if (sequence.ended) return;
    sequence.aborted = true;
    const running = this.#running;
    if (running?.parts.some((part) => part.sequence === sequence) !== true) {
      this.#sequences = this.#sequences.filter((other) => other !== sequence);
      sequence.finish('abort');
      return;
    }
    // A single step shared with others ends soon enough; it would be lost work to stop it.
    if (running.step.steps > 1 || running.parts.every((part) => part.sequence.aborted)) {
      running.abortCalled = true;
      this.#executable.abort();
    }
  }
}

/** Gives every sequence of a step the tokens made for it. A sequence that cannot take them fails alone. */
function distribute(running: RunningStep, { tokens: made, logits }: StepResult, usage: Usage): void {
  const vocab = logits === undefined ? 0 : logits.length / made.length;
  for (const { sequence, rows, sample, samples } of running.parts) {
    try {
      const tokens = sample === undefined ? [] : (made[sample] ?? []);
      // A row that was aborted made nothing, and is fed again.
      if (logits !== undefined && samples.every((s) => made[s]?.length === 1)) {
        const own = samples.map((s) => logits.subarray(s * vocab, (s + 1) * vocab));
        if (tokens.length > 0 || !running.abortCalled) sequence.score(rows, own, tokens[0]);
      }
      if (tokens.length > 0) sequence.take(tokens.slice(running.told[sample!]));
      else if (sample === undefined && !running.abortCalled) sequence.advancePrompt(rows);
      else {
        // An interrupted prompt may not have been fed; its rows are fed again if they are asked for again.
        assert(running.abortCalled, 'the executable made no token');
        continue;
      }
      sequence.endStep(usage);
    } catch (error) {
      sequence.fail(error);
    }
  }
}
