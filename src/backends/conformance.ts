/**
 * What every backend must do, as one suite of tests: small models of every family, under all schedules, in every kind of
 * step. A backend's own test is a call of `runBackendConformance`; what it cannot do it skips by name, with a reason.
 * The oracle is the reference backend, which is compared with independent implementations elsewhere.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelConfig, modelNames, smallLimits, Workspace, type ModelName } from '../../tests/support/models.js';
import {
  generate,
  greedy,
  logitsOfAll,
  promptOf,
  relativeError,
  stepOf,
  trace,
  type Row,
  type Text,
} from '../../tests/support/steps.js';
import type { Weights } from '../checkpoint/weights.js';
import type { Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { compileModel, type CompiledModel } from '../passes/pipeline.js';
import type { Backend, Executable, PrepareOptions, SampleSettings } from './backend.js';
import { firstDifference } from './conformance-difference.js';
import { referenceBackend } from './reference/index.js';

export interface ConformanceOptions {
  readonly name: string;
  readonly make: () => Backend | Promise<Backend>;
  /** Tests that this backend cannot pass: their names, and why. */
  readonly skip?: readonly { readonly reason: string; readonly tests: readonly string[] }[];
  readonly prepare?: PrepareOptions;
  /** Largest difference from the oracle's float32 logits, relative to their range. */
  readonly tolerance?: number;
}

/** Tokens of one response call: few, so that texts take several. */
const trip = 4;
const limits = { ...smallLimits, samples: smallLimits.rows };

/** Declares the suite; call it at the top of a test file. */
export function runBackendConformance(options: ConformanceOptions): void {
  const suite = new Suite(options);
  describe(`conformance of the ${options.name} backend`, () => {
    beforeAll(() => suite.open());
    afterAll(() => suite.close());
    describe.each(modelNames)('%s', (model) => suite.forModel(model));
    describe('steps', () => suite.forSteps());
    describe('sampling', () => suite.forSampling());
    describe('life of an executable', () => suite.forLife());
    it('skips no test that there is not', () => {
      const skipped = (options.skip ?? []).flatMap(({ tests }) => tests);
      expect(skipped.filter((name) => !suite.names.has(name))).toEqual([]);
    });
  });
}

/** One model under one schedule, prepared when it is first asked for. */
interface Prepared {
  readonly compiled: CompiledModel;
  readonly executable: Executable;
}

class Suite {
  readonly names = new Set<string>();
  private readonly workspace = new Workspace();
  private readonly weights = new Map<ModelName, Promise<Weights>>();
  private readonly prepared = new Map<string, Promise<Prepared>>();
  private made: Backend | undefined;

  constructor(private readonly options: ConformanceOptions) {}

  async open(): Promise<void> {
    this.made = await this.options.make();
  }

  async close(): Promise<void> {
    for (const one of this.prepared.values()) await one.then(({ executable }) => executable.close()).catch(() => null);
    this.workspace.remove();
  }

  private get backend(): Backend {
    if (this.made === undefined) throw new Error('the backend was not made');
    return this.made;
  }

  private get schedules(): readonly Schedule[] {
    return this.backend.capabilities.schedules;
  }

  private test(name: string, body: () => Promise<void>): void {
    this.names.add(name);
    const skipped = this.options.skip?.find(({ tests }) => tests.includes(name));
    if (skipped === undefined) it(name, body);
    else it.skip(`${name} (${skipped.reason})`, body);
  }

  private weightsOf(model: ModelName): Promise<Weights> {
    const known = this.weights.get(model) ?? this.workspace.weights(modelConfig(model));
    this.weights.set(model, known);
    return known;
  }

  private compile(config: ModelConfig, backend: Backend, schedule: Schedule): CompiledModel {
    const { capabilities } = backend;
    const workers = this.options.prepare?.threads;
    const rest = workers === undefined ? {} : { workers };
    return compileModel(config, { schedule, limits, capabilities, responseTokens: trip, ...rest });
  }

  private async prepareOn(backend: Backend, model: ModelName, schedule: Schedule): Promise<Prepared> {
    const compiled = this.compile(modelConfig(model), backend, schedule);
    const { cacheDir } = this.workspace;
    const weights = await this.weightsOf(model);
    return {
      compiled,
      executable: await backend.prepare(compiled.plan, weights, { cacheDir, ...this.options.prepare }),
    };
  }

  /** Freshly reset. */
  private async get(model: ModelName, schedule: Schedule, backend = this.backend): Promise<Prepared> {
    const key = `${backend === this.backend ? 'own' : backend.name} ${model} ${schedule}`;
    const known = this.prepared.get(key) ?? this.prepareOn(backend, model, schedule);
    this.prepared.set(key, known);
    const prepared = await known;
    await prepared.executable.reset();
    return prepared;
  }

  private async executable(model: ModelName, schedule: Schedule = 'response'): Promise<Executable> {
    return (await this.get(model, schedule)).executable;
  }

  private async oracle(model: ModelName): Promise<Executable> {
    return (await this.get(model, 'response', referenceBackend)).executable;
  }

  forModel(model: ModelName): void {
    const { vocab } = modelConfig(model);
    const text = { prompt: promptOf(11, vocab), chunk: 3 };

    this.test('gives the same bits under every schedule', async () => {
      const traces = await Promise.all(
        this.schedules.map(async (schedule) => trace(await this.executable(model, schedule), text, 8)),
      );
      for (const [i, schedule] of this.schedules.entries()) {
        const same = traces[i]!.logits.every((logits, at) => sameBits(logits, traces[0]!.logits[at]!));
        const why = same ? '' : await this.difference(model, this.schedules[0]!, schedule);
        expect(same, `${schedule} differs from ${this.schedules[0]!}${why}`).toBe(true);
        expect(traces[i]!.tokens).toEqual(traces[0]!.tokens);
      }
      const response = await generate(await this.executable(model), text, 10);
      expect(response.tokens[0]!.slice(0, 8)).toEqual(traces[0]!.tokens);
    });

    this.test('obeys biases and masks, the same under every schedule', async () => {
      const allowed = new Int32Array(Math.ceil(vocab / 32));
      for (let token = 0; token < vocab; token += 3) allowed[token >> 5]! |= 1 << (token & 31);
      const bias = [3, 5, 12].map((token) => [token, 4] as const);
      const settings = {
        ...greedy,
        temperature: 1.5,
        repetitionPenalty: 1.2,
        presencePenalty: 0.5,
        madeFrom: 11,
        bias,
      };
      const masked: Text = { ...text, settings: { ...settings, allowed } };
      const expected = (await generate(await this.oracle(model), masked, 10)).tokens[0]!;
      expect(expected.every((token) => token % 3 === 0)).toBe(true);
      for (const schedule of this.schedules) {
        const executable = await this.executable(model, schedule);
        expect((await generate(executable, masked, 10)).tokens[0], schedule).toEqual(expected);
        // Of several samples each has its own.
        const start = { token: 1, position: 0 };
        const rows = [greedy, { ...greedy, bias: [[7, 1e4]] as const }, { ...greedy, allowed }].map((sample, slot) => ({
          ...{ ...start, slot, sample },
        }));
        const { tokens } = await executable.run(stepOf(rows));
        const plain = await executable.run(stepOf([{ ...start, sample: greedy }]));
        expect([tokens[0], tokens[1], tokens[2]![0]! % 3], schedule).toEqual([plain.tokens[0], [7], 0]);
      }
    });

    this.test('agrees with the oracle', async () => {
      const expected = await trace(await this.oracle(model), text, 8);
      const actual = await trace(await this.executable(model), text, 8);
      const errors = actual.logits.map((logits, at) => relativeError(logits, expected.logits[at]!));
      expect(Math.max(...errors)).toBeLessThan(this.options.tolerance ?? 2e-3);
      expect(actual.tokens).toEqual(expected.tokens);
    });

    this.test('gives the same logits for chunks of any size', async () => {
      const executable = await this.executable(model);
      const tokens = promptOf(limits.rows, vocab, 2);
      const single = await logitsOfAll(executable, tokens, 1);
      for (const [slot, chunk] of [3, limits.rows].entries()) {
        const chunked = await logitsOfAll(executable, tokens, chunk, slot + 1);
        const errors = chunked.map((logits, at) => relativeError(logits, single[at]!));
        expect(Math.max(...errors), `chunks of ${chunk}`).toBeLessThan(1e-5);
      }
    });

    this.test('computes a sequence alike, alone and beside others', async () => {
      const executable = await this.executable(model);
      const prompts = [5, 2, 7].map((length, seed) => promptOf(length, vocab, seed + 3));
      const rows: Row[] = [];
      const alone: Float32Array[] = [];
      for (const [slot, prompt] of prompts.entries()) {
        const { logits } = await trace(executable, { prompt, slot }, 1);
        alone.push(logits[0]!);
        rows.push({ token: prompt.at(-1)!, position: prompt.length - 1, slot, sample: greedy });
      }
      const { logits } = await executable.run(stepOf(rows, { wantLogits: true }));
      const together = rows.map((_, s) => logits!.slice(s * vocab, (s + 1) * vocab));
      expect(together.every((own, s) => sameBits(own, alone[s]!))).toBe(true);
    });
  }

  /** The first operator whose result is another one under the second schedule. */
  private async difference(model: ModelName, first: Schedule, second: Schedule): Promise<string> {
    const compiled = { config: modelConfig(model), weights: await this.weightsOf(model), limits };
    const prepare = { cacheDir: this.workspace.cacheDir, ...this.options.prepare };
    const found = await firstDifference(this.backend, compiled, [first, second], prepare);
    return found === undefined ? ', in the loop over tokens' : `, first in ${found}`;
  }

  forSteps(): void {
    const model = 'llama';
    const { vocab } = modelConfig(model);
    const prompt = promptOf(6, vocab, 4);

    this.test('leaves idle rows alone', async () => {
      const executable = await this.executable(model);
      const expected = await trace(executable, { prompt }, 4);
      await executable.reset();
      await generate(executable, { prompt }, 1);
      // The idle row names the slot of the sequence, and must not touch it.
      const token = expected.tokens[0]!;
      const rows = [
        { token: 3, position: -1, slot: 0, sample: greedy },
        { token, position: prompt.length, slot: 0, sample: greedy },
      ];
      const { tokens, logits } = await executable.run(stepOf(rows, { wantLogits: true }));
      expect(sameBits(logits!.slice(vocab), expected.logits[1]!)).toBe(true);
      expect(tokens[1]).toEqual([expected.tokens[1]]);
    });

    this.test('makes any number of tokens in one request', async () => {
      const executable = await this.executable(model);
      const { tokens: expected } = await trace(executable, { prompt }, 11);
      for (const [slot, count] of [1, 2, trip, trip + 1, 11].entries()) {
        const result = await generate(executable, { prompt, slot: slot % limits.slots }, count);
        expect(result.tokens).toEqual([expected.slice(0, count)]);
        expect(result.done).toEqual([false]);
      }
    });

    this.test('stops at a stop token, and says so', async () => {
      const executable = await this.executable(model);
      const { tokens: expected } = await trace(executable, { prompt }, 9);
      const stop = expected[6]!;
      const end = expected.indexOf(stop) + 1;
      const others = Array.from({ length: 15 }, (_, i) => i).filter((id) => !expected.includes(id));
      const result = await generate(executable, { prompt, slot: 1, stopTokens: [...others, stop] }, 9);
      expect(result).toMatchObject({ tokens: [expected.slice(0, end)], done: [true] });
    });

    this.test('ends every sample at its own limit', async () => {
      const executable = await this.executable(model);
      const { tokens: expected } = await trace(executable, { prompt }, 9);
      const row = { token: prompt.at(-1)!, position: prompt.length - 1 };
      const remaining = [3, 9, 0, 100];
      for (const slot of remaining.keys()) await generate(executable, { prompt, slot }, 1);
      const rows = remaining.map((left, slot) => ({ ...row, slot, sample: { ...greedy, remaining: left } }));
      const { tokens, done } = await executable.run(stepOf(rows, { steps: 9 }));
      expect(tokens).toEqual(remaining.map((left) => expected.slice(0, left)));
      expect(done).toEqual([true, true, true, false]);
    });
  }

  forSampling(): void {
    const model = 'llama';
    const prompt = promptOf(6, modelConfig(model).vocab, 5);
    const warm = { ...greedy, temperature: 0.9 };
    const settings: readonly (readonly [string, Partial<SampleSettings>])[] = [
      ['temperature', {}],
      ['a low temperature', { temperature: 0.01 }],
      ['top-k', { topK: 5 }],
      ['top-p', { topP: 0.6 }],
      ['min-p', { minP: 0.2 }],
      ['repetition penalty', { repetitionPenalty: 1.6 }],
      ['a greedy repetition penalty', { repetitionPenalty: 3, temperature: 0 }],
      ['presence and frequency penalties', { presencePenalty: 1.5, frequencyPenalty: 0.75, madeFrom: prompt.length }],
      ['all together', { topK: 40, topP: 0.9, minP: 0.02, repetitionPenalty: 1.2, temperature: 1.5 }],
    ];
    for (const [name, changed] of settings) {
      this.test(`draws the oracle's tokens under every schedule: ${name}`, async () => {
        for (const seed of [1, 2]) {
          const text = { prompt, settings: { ...warm, ...changed, seed: [seed, -seed] as const } };
          const { tokens: expected } = await generate(await this.oracle(model), text, 12);
          for (const schedule of this.schedules) {
            const { tokens } = await generate(await this.executable(model, schedule), text, 12);
            expect(tokens, schedule).toEqual(expected);
          }
        }
      });
    }
  }

  forLife(): void {
    const model = 'llama';
    const { vocab, layers } = modelConfig(model);
    const prompt = promptOf(5, vocab, 6);

    this.test('counts kernel calls where they happen', async () => {
      const calls: Record<Schedule, (tokens: number) => number> = {
        operator: (tokens) => tokens * (10 * layers + 3),
        layer: (tokens) => tokens * (layers + 3),
        looped: (tokens) => tokens * 4,
        response: (tokens) => Math.ceil(tokens / trip),
      };
      for (const schedule of this.schedules) {
        const { executable, compiled } = await this.get(model, schedule);
        await generate(executable, { prompt }, 1);
        const before = executable.counters;
        await generate(executable, { prompt: [prompt[0]!] }, 11);
        const after = executable.counters;
        expect(after.kernelCalls - before.kernelCalls, schedule).toBe(calls[schedule](11));
        expect(after.tokens - before.tokens).toBe(11);
        expect(after.bytesRead).toBeGreaterThan(before.bytesRead);
        expect(compiled.plan.step.calls.length).toBe(schedule === 'response' ? 4 : calls[schedule](1));
      }
    });

    this.test('forgets everything on reset', async () => {
      const executable = await this.executable(model);
      const penalized = { prompt, settings: { ...greedy, repetitionPenalty: 5 } };
      const first = await trace(executable, penalized, 6);
      await trace(executable, { ...penalized, prompt: promptOf(9, vocab, 7) }, 6);
      await executable.reset();
      // Whatever is left of the other text would be read by a row whose own prompt was never fed.
      const late = { token: prompt[0]!, position: 12, sample: greedy };
      const blank = await executable.run(stepOf([late], { wantLogits: true }));
      await executable.reset();
      expect(sameBits((await trace(executable, penalized, 6)).logits[5]!, first.logits[5]!)).toBe(true);
      await executable.reset();
      expect(sameBits((await executable.run(stepOf([late], { wantLogits: true }))).logits!, blank.logits!)).toBe(true);
    });

    this.test('stops where it is on abort, and goes on with the next request', async () => {
      const executable = await this.executable(model);
      const { tokens: expected } = await trace(executable, { prompt }, 3);
      await executable.reset();
      // So small a model may be done before it is told to stop.
      let whole = true;
      for (let attempt = 0; attempt < 100 && whole; attempt++) {
        let done = false;
        const poll = (): void => {
          if (done) return;
          executable.abort();
          setImmediate(poll);
        };
        setImmediate(poll);
        const { tokens } = await generate(executable, { prompt, slot: 1 }, 50).finally(() => (done = true));
        whole = tokens[0]!.length === 50;
      }
      expect(whole).toBe(false);
      const result = await generate(executable, { prompt }, 3);
      expect(result.tokens).toEqual([expected]);
    });

    this.test('tells every token of a result once, in order', async () => {
      const executable = await this.executable(model);
      const told: number[][] = [[], []];
      const rows = [0, 1].map((slot) => {
        const sample = { ...greedy, remaining: 7 - 2 * slot };
        return { token: prompt[slot]!, position: 0, slot, sample };
      });
      const result = await executable.run(stepOf(rows, { steps: 10 }), (sample, token) => told[sample]!.push(token));
      expect(told).toEqual(result.tokens);
      expect(told.map(({ length }) => length)).toEqual([7, 5]);
    });

    this.test('stops a request that has only just been made', async () => {
      const executable = await this.executable(model);
      const row = { token: prompt[0]!, position: 0, sample: greedy };
      const runs = [executable.run(stepOf([row], { steps: 40 })), executable.run(stepOf([row], { steps: 40 }))];
      executable.abort();
      for (const { tokens } of await Promise.all(runs)) expect(tokens[0]!.length).toBeLessThan(40);
    });

    this.test('runs queued requests one after another', async () => {
      const executable = await this.executable(model);
      const { tokens: expected } = await trace(executable, { prompt }, 4);
      const runs = [0, 1, 2].map((slot) => generate(executable, { prompt, slot }, 4));
      for (const { tokens } of await Promise.all(runs)) expect(tokens).toEqual([expected]);
    });

    this.test('refuses a program that was changed after it was checked', async () => {
      const { plan } = this.compile(modelConfig(model), this.backend, 'layer');
      const changed = { ...plan.step, calls: plan.step.calls.toSpliced(1, 1) };
      const { cacheDir } = this.workspace;
      const weights = await this.weightsOf(model);
      await expect(this.backend.prepare({ step: changed }, weights, { cacheDir })).rejects.toThrow(/certified/);
    });

    this.test('closes twice, in the middle of a request, and then refuses', async () => {
      const { executable } = await this.prepareOn(this.backend, model, 'response');
      const row = { token: prompt[0]!, position: 0, sample: greedy };
      const running = executable.run(stepOf([row], { steps: 60 }));
      const closing = [executable.close(), executable.close()];
      expect((await running).tokens[0]!.length).toBeLessThan(60);
      await Promise.all(closing);
      await expect(executable.run(stepOf([row]))).rejects.toThrow(/closed/);
      executable.abort();
      await executable.close();
    });
  }
}

function sameBits(a: Float32Array, b: Float32Array): boolean {
  const bits = (array: Float32Array): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  return bits(a).equals(bits(b));
}
