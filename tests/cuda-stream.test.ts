/** Sessions on the cuda backend take tokens while the kernel runs that makes them, and can end it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { byteTokenizer } from './support/byte-tokenizer.js';
import { hostCompiler, makeFakeDriver } from './support/cuda/fake-driver.js';
import { modelConfig, smallLimits, Workspace } from './support/models.js';
import { compileModel } from '../src/passes/pipeline.js';
import { ChatFormat } from '../src/runtime/chat-format.js';
import { Scheduler } from '../src/runtime/scheduler.js';
import { Session, type GenerateOptions } from '../src/runtime/session.js';
import type { Executable } from '../src/backends/backend.js';
import { createCudaBackend } from '../src/backends/cuda/index.js';
import { hostTarget } from '../src/backends/cuda/target.js';

const workspace = new Workspace();
const config = modelConfig('llama');
let executable: Executable;
let scheduler: Scheduler;

beforeAll(async () => {
  const driverPath = makeFakeDriver(workspace.directory);
  const backend = createCudaBackend({ driverPath, compiler: hostCompiler, target: hostTarget });
  const { capabilities } = backend;
  const { plan } = compileModel(config, { schedule: 'response', limits: smallLimits, capabilities });
  executable = await backend.prepare(plan, await workspace.weights(config), { cacheDir: workspace.cacheDir });
  // By a clock that stands still, every call may make as many tokens as one can.
  scheduler = new Scheduler(executable, { limits: smallLimits, now: () => 0 });
});
afterAll(async () => {
  await scheduler.close();
  workspace.remove();
});

/** A session in slot 0 that was never used. */
async function session(): Promise<Session> {
  await executable.reset();
  const { vocab, context: maxContext } = config;
  const parts = { tokenizer: byteTokenizer, chat: new ChatFormat({}), maxContext, vocab, stopTokens: [] };
  return new Session({ scheduler, limits: smallLimits, ...parts }, 0, () => undefined);
}

const prompt = [1, 100, 101];
/** Tokens that are made where the first long call is not ended: one from the prompt, and those of the call. */
const longest = 1 + 32;

/** A text to its end: what was made, and the counters when each piece of it came. */
async function make(options: GenerateOptions, pieces = Infinity) {
  const before = executable.counters;
  const generation = (await session()).generate(prompt, { seed: 3, ...options });
  const calls: number[] = [];
  for await (const { tokens } of generation) {
    const sofar = executable.counters.kernelCalls - before.kernelCalls;
    calls.push(...tokens.map(() => sofar));
    if (calls.length >= pieces) break;
  }
  const result = await generation.result;
  return { ...result, calls, made: executable.counters.tokens - before.tokens };
}

describe('a session on the cuda backend', () => {
  it('has tokens before their call has ended', async () => {
    const { tokens, calls, counters } = await make({ maxTokens: 34 });
    expect(tokens).toHaveLength(34);
    // The prompt, one call to measure, and one for 32 tokens, whose first come while only those before are counted.
    expect(counters.decode).toMatchObject({ steps: 2, tokens: 33, kernelCalls: 2 });
    const last = calls[0]! + 2;
    expect(calls.slice(0, 4)).toEqual([last - 2, last - 1, last - 1, last - 1]);
  });

  it('ends the call that has made a stop string', async () => {
    const whole = await make({ maxTokens: 34 });
    const stop = byteTokenizer.decode(whole.tokens.slice(2, 4));
    const { text, tokens, finishReason, made } = await make({ maxTokens: 34, stop: [stop] });
    expect(finishReason).toBe('stop');
    expect(text).toBe(whole.text.slice(0, whole.text.indexOf(stop)));
    expect(tokens).toEqual(whole.tokens.slice(0, tokens.length));
    expect(made).toBeLessThan(longest);
  });

  it('ends the call whose reader has gone', async () => {
    const whole = await make({ maxTokens: 34 });
    const { tokens, finishReason, made } = await make({ maxTokens: 34 }, 3);
    expect(finishReason).toBe('abort');
    expect(tokens).toEqual(whole.tokens.slice(0, tokens.length));
    expect(made).toBeLessThan(longest);
  });
});
