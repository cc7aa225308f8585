/**
 * What all backends share when they run a `Step`: the input arrays, the loop over tokens on the host, and what became of
 * every sample. Under `response` a call makes a chunk of tokens; under the other schedules the host copies what recurs
 * from the outputs of one token step to the inputs of the next. How a kernel is launched is the backend's own business.
 */
import { baseName } from '../ir/outline.js';
import type { Name, Program } from '../ir/program.js';
import type { Extents } from '../ir/tensor.js';
import { maxStopTokens } from '../ops/advance.js';
import { allowedWords, maxBiasedTokens, settingsPerSample } from '../ops/sample.js';
import { assert, defined } from '../util/assert.js';
import type { ExecutionPlan, Step, StepResult, TokenListener } from './backend.js';

export type Arrays = ReadonlyMap<Name, Float32Array | Int32Array>;

/**
 * How a backend runs all calls of one of its programs once. Resolves to the program's outputs and recurring values.
 * @param onToken may be told tokens of a sample that can be seen before, from its first of this launch on, in order
 */
export type Launch = (program: Program, inputs: Arrays, extents: Extents, onToken: TokenListener) => Promise<Arrays>;

export interface HostLoopOptions {
  /** Asked before every launch; where it says so, what was made until then is the result. */
  readonly aborted: () => boolean;
  readonly onToken?: TokenListener | undefined;
}

/** Runs a step to its end: `steps` tokens per sample, or until every sample is done. */
export async function runStep(
  plan: ExecutionPlan,
  step: Step,
  launch: Launch,
  options: HostLoopOptions,
): Promise<StepResult> {
  checkStep(plan.step, step);
  const program = programFor(plan, step);
  const samples = step.sampling.map(({ remaining }, s) => {
    return new SampleProgress(remaining, step, (token) => options.onToken?.(s, token));
  });
  const extents: Extents = { rows: step.tokens.length, samples: step.index.length };
  let inputs = stepInputs(step);
  let outputs: Arrays = new Map();
  let made = 0;
  // A prompt chunk without samples is launched once, too: for what it leaves in the state.
  do {
    if (options.aborted()) break;
    const early = samples.map(() => 0);
    outputs = await launch(program, only(program, inputs), extents, (s, token) => {
      samples[s]!.add(token);
      early[s]!++;
    });
    made += collectTokens(program, outputs, samples, early);
    inputs = nextInputs(program, inputs, outputs);
  } while (made < step.steps && !samples.every(({ full }) => full));
  const logits = step.wantLogits === true ? outputs.get('logits') : undefined;
  const result = { tokens: samples.map(({ tokens }) => tokens), done: samples.map(({ done }) => done) };
  return logits instanceof Float32Array ? { ...result, logits } : result;
}

/** The program for many tokens where every row is a sample, be it for one token: it takes the fewest calls. */
function programFor(plan: ExecutionPlan, step: Step): Program {
  const { response } = plan;
  if (response === undefined || !isDecode(step)) return plan.step;
  return step.wantLogits === true && !response.outputs.includes('logits') ? plan.step : response;
}

function isDecode({ tokens, index }: Step): boolean {
  return index.length === tokens.length && index.every((row, s) => row === s);
}

/** The tokens of one sample, followed on the host: done when a stop token or its own limit was reached. */
class SampleProgress {
  readonly tokens: number[] = [];
  done: boolean;

  constructor(
    private readonly limit: number,
    private readonly step: Step,
    private readonly onToken: (token: number) => void,
  ) {
    this.done = limit <= 0;
  }

  /** It takes nothing more in this step, though it may go on in the next one. */
  get full(): boolean {
    return this.done || this.tokens.length >= this.step.steps;
  }

  add(token: number): void {
    if (this.full || token < 0) return;
    this.tokens.push(token);
    this.done = this.tokens.length >= this.limit || this.step.stopTokens.includes(token);
    this.onToken(token);
  }
}

/**
 * Reads what was emitted, one output per token; what follows the end of a sample has no meaning. Returns the tokens.
 * @param early for every sample, how many of them it has already
 */
function collectTokens(
  program: Program,
  outputs: Arrays,
  samples: readonly SampleProgress[],
  early: readonly number[],
): number {
  const perToken = program.outputs.filter((output) => baseName(output) === 'emitted');
  perToken.forEach((name, index) => {
    const emitted = defined(outputs.get(name), name); // (samples)
    samples.forEach((sample, s) => {
      if (index >= early[s]!) sample.add(emitted[s]!);
    });
  });
  return perToken.length;
}

/** Every input a token step can have, by name; those that nothing looks at are absent (`optionalInputs`). */
export function stepInputs(step: Step): Arrays {
  const { sampling } = step;
  const stops = new Int32Array(maxStopTokens).fill(-1);
  stops.set(step.stopTokens);
  const settings = new Float32Array(sampling.length * settingsPerSample);
  const seeds = new Int32Array(sampling.length * 2);
  sampling.forEach((sample, s) => {
    const { temperature, topK, topP, minP, repetitionPenalty } = sample;
    const { presencePenalty = 0, frequencyPenalty = 0, madeFrom = 0 } = sample;
    const penalties = [repetitionPenalty, presencePenalty, frequencyPenalty, madeFrom];
    const edits = [sample.bias?.length ?? 0, sample.allowed === undefined ? 0 : 1];
    settings.set([temperature, topK, topP, minP, ...penalties, ...edits], s * settingsPerSample);
    seeds.set(sample.seed, s * 2);
  });
  // The step ends after `steps` tokens, whatever a sample may still make after it.
  const remaining = Int32Array.from(sampling, (settings) => Math.min(settings.remaining, step.steps));
  return new Map<Name, Float32Array | Int32Array>([
    ['tokens', step.tokens],
    ['positions', step.positions],
    ['slots', step.slots],
    ['index', step.index],
    ['settings', settings],
    ['seeds', seeds],
    ['remaining', remaining],
    ['done', remaining.map((count) => (count <= 0 ? 1 : 0))],
    ['stop_tokens', stops],
    ...biasInputs(step),
    ...maskInputs(step),
  ]);
}

/** Inputs that are given only where a sample needs them: they are long, and the settings say who looks at them. */
export const optionalInputs: ReadonlySet<Name> = new Set(['biased', 'biases', 'allowed']);

function biasInputs({ sampling }: Step): [Name, Float32Array | Int32Array][] {
  if (sampling.every(({ bias = [] }) => bias.length === 0)) return [];
  const biased = new Int32Array(sampling.length * maxBiasedTokens);
  const biases = new Float32Array(sampling.length * maxBiasedTokens);
  sampling.forEach(({ bias = [] }, s) => {
    biased.set(
      bias.map(([token]) => token),
      s * maxBiasedTokens,
    );
    biases.set(
      bias.map(([, value]) => value),
      s * maxBiasedTokens,
    );
  });
  return [
    ['biased', biased],
    ['biases', biases],
  ];
}

function maskInputs({ sampling }: Step): [Name, Int32Array][] {
  const words = sampling.find(({ allowed }) => allowed !== undefined)?.allowed?.length;
  if (words === undefined) return [];
  const allowed = new Int32Array(sampling.length * words);
  sampling.forEach((sample, s) => {
    if (sample.allowed !== undefined) allowed.set(sample.allowed, s * words);
  });
  return [['allowed', allowed]];
}

function nextInputs(program: Program, inputs: Arrays, outputs: Arrays): Arrays {
  const next = new Map(inputs);
  for (const { output, input } of program.recurrence) next.set(input, defined(outputs.get(output), output));
  return next;
}

/** The inputs that this program has. */
function only(program: Program, inputs: Arrays): Arrays {
  const names = program.values
    .filter(({ name, origin }) => origin.kind === 'input' && (inputs.has(name) || !optionalInputs.has(name)))
    .map(({ name }) => name);
  return new Map(names.map((name) => [name, defined(inputs.get(name), `input ${name}`)]));
}

/** A step outside the limits is a bug of the caller: sessions check what users ask for. */
function checkStep({ limits, values }: Program, step: Step): void {
  const { tokens, positions, slots, index, sampling, steps } = step;
  const rows = tokens.length;
  assert(positions.length === rows && slots.length === rows, 'tokens, positions and slots of different lengths');
  assert(rows > 0 && rows <= limits.rows, `${rows} rows, compiled for ${limits.rows}`);
  assert(sampling.length === index.length, 'index and sampling of different lengths');
  assert(index.length <= limits.samples, `${index.length} samples, compiled for ${limits.samples}`);
  assert(step.stopTokens.length <= maxStopTokens, `${step.stopTokens.length} stop tokens`);
  const vocab = values.find(({ name }) => name === 'logits')?.tensor.shape.at(-1);
  const within = (array: Int32Array, low: number, high: number): boolean => array.every((i) => i >= low && i < high);
  assert(typeof vocab !== 'number' || within(tokens, 0, vocab), 'a token outside the vocabulary');
  assert(within(positions, -1, limits.context) && within(slots, 0, limits.slots), 'a row outside the context or slots');
  assert(within(index, 0, rows), 'a sample of a row that is not there');
  if (typeof vocab === 'number') checkEdits(sampling, vocab);
  assert(steps >= 1, `a step of ${steps} tokens`);
  if (steps === 1) return;
  assert(isDecode(step), 'more than one token needs every row to be a sample');
  sampling.forEach(({ remaining }, s) => {
    const end = positions[s]! + Math.min(remaining, steps);
    assert(end <= limits.context, `a sample would reach position ${end} of ${limits.context}`);
  });
}

/** Kernels write and read where these say. */
function checkEdits(sampling: Step['sampling'], vocab: number): void {
  for (const { bias = [], allowed } of sampling) {
    assert(bias.length <= maxBiasedTokens, `${bias.length} biased tokens`);
    const ids = new Set(bias.map(([token]) => token));
    const inside = [...ids].every((token) => Number.isInteger(token) && token >= 0 && token < vocab);
    assert(ids.size === bias.length && inside, 'a biased token twice, or outside the vocabulary');
    assert(allowed === undefined || allowed.length === allowedWords(vocab), 'a mask of another vocabulary');
  }
}
