/**
 * sample: the next token of every sample. First what the caller says of single tokens: biases, and which are allowed. Then
 * in the order of Hugging Face: penalties, temperature, top-k, top-p, min-p, then one draw of a counter-based generator: a
 * token depends on its logits, history, seed and position, on nothing else.
 *
 * settings f32[samples, 10] = temperature (0 or less: greedy), topK (0: off), topP (1: off), minP (0: off),
 * repetitionPenalty (1: off), presencePenalty (0: off), frequencyPenalty (0: off), the position of the first token made
 * (these two count the tokens from there on, as OpenAI defines them), how many tokens are biased, and 1 where only those
 * of `allowed` may be chosen. seeds i32[samples, 2] = low and high half of the seed.
 *
 * biased i32[samples, 300] = different token ids, biases f32[samples, 300] = what is added to their logits: as many as
 * settings say, the rest is not looked at. allowed i32[samples, ceil(vocab / 32)] = a bit per token, the lowest first; at
 * least one is set. All three or none of them are operands.
 */
import type { OperatorOf } from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import { uniform } from '../util/prng.js';
import { perSocket, type OperatorDefinition, type Operands } from './definition.js';
import {
  activationCost,
  expect,
  expectIndices,
  expectMatrix,
  fixedDim,
  floats,
  indexVector,
  ints,
  leading,
} from './shared.js';

/** Length of a row of `settings`. */
export const settingsPerSample = 10;
/** Length of a row of `biased` and of `biases`. */
export const maxBiasedTokens = 300;
/** Length of a row of `allowed`. */
export function allowedWords(vocab: number): number {
  return Math.ceil(vocab / 32);
}

export const sample: OperatorDefinition<'sample'> = {
  kind: 'sample',
  reads: ['logits', 'index', 'slots', 'positions', 'history', 'settings', 'seeds'],
  optionalReads: ['biased', 'biases', 'allowed'],
  updates: [],
  writes: ['token'],
  attributes: {},
  split: { kind: 'single' },

  infer({ reads, writes }, typeOf) {
    const logits = typeOf(reads.logits);
    const samples = leading(logits);
    const rows = leading(typeOf(reads.positions));
    expectMatrix('sample: logits', logits);
    expectIndices('sample: index', typeOf(reads.index), [samples]);
    expectIndices('sample: slots', typeOf(reads.slots), [rows]);
    expectIndices('sample: positions', typeOf(reads.positions), [rows]);
    expectIndices('sample: seeds', typeOf(reads.seeds), [samples, 2]);
    const [slots, context] = typeOf(reads.history).shape.map((dim) => fixedDim('sample: history', dim));
    expectIndices('sample: history', typeOf(reads.history), [slots ?? 0, context ?? 0]);
    const settings = typeOf(reads.settings);
    expectMatrix('sample: settings', settings);
    const fits = leading(settings) === samples && settings.shape[1] === settingsPerSample;
    expect(fits, `sample: settings must be f32[${String(samples)}, ${settingsPerSample}]`);
    const { biased, biases, allowed } = reads;
    if (biased !== undefined || biases !== undefined || allowed !== undefined) {
      expect(biased !== undefined && biases !== undefined && allowed !== undefined, 'sample: biases without a mask');
      expectIndices('sample: biased', typeOf(biased), [samples, maxBiasedTokens]);
      expectMatrix('sample: biases', typeOf(biases));
      const room = leading(typeOf(biases)) === samples && typeOf(biases).shape[1] === maxBiasedTokens;
      expect(room, `sample: biases must be f32[${String(samples)}, ${maxBiasedTokens}]`);
      const words = allowedWords(fixedDim('sample: vocabulary', logits.shape[1]));
      expectIndices('sample: allowed', typeOf(allowed), [samples, words]);
    }
    return { [writes.token]: indexVector(samples) };
  },

  cost({ reads, writes }, typeOf, at) {
    const logits = tensorBytes(typeOf(reads.logits), at);
    const touched = [typeOf(reads.logits), typeOf(reads.settings), typeOf(reads.seeds), typeOf(writes.token)];
    // One comparison a logit; the history is read only under a penalty, biases and masks where there are some.
    return activationCost(logits / 4, touched, at);
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const logits = floats(operand(reads.logits)); // (samples, vocab)
    const [samples, vocab] = operand(reads.logits).shape as [number, number];
    const context = operand(reads.history).shape[1]!;
    const [index, slots, positions] = [reads.index, reads.slots, reads.positions].map((name) => ints(operand(name)));
    const history = ints(operand(reads.history));
    const settings = floats(operand(reads.settings));
    const seeds = ints(operand(reads.seeds));
    const token = ints(operand(writes.token));
    const edit = editor(reads, operand);
    for (let s = 0; s < samples; s++) {
      const row = index![s]!;
      const position = positions![row]!;
      if (position < 0) {
        token[s] = 0;
        continue;
      }
      const from = slots![row]! * context;
      const own = settings.subarray(s * settingsPerSample, (s + 1) * settingsPerSample);
      token[s] = chooseToken(
        edit(logits.slice(s * vocab, (s + 1) * vocab), s, own),
        history.subarray(from, from + position + 1),
        own,
        () => uniform(position, [seeds[2 * s]!, seeds[2 * s + 1]!]),
      );
    }
  }),
};

type Editor = (logits: Float32Array, sample: number, settings: Float32Array) => Float32Array;

/** Adds the biases of a sample to its logits, and takes out what is not allowed; `logits` is overwritten. */
function editor(reads: OperatorOf<'sample'>['reads'], operand: Operands): Editor {
  const { biased, biases, allowed } = reads;
  if (biased === undefined || biases === undefined || allowed === undefined) return (logits) => logits;
  const [tokens, values, mask] = [ints(operand(biased)), floats(operand(biases)), ints(operand(allowed))];
  return (logits, sample, settings) => {
    const [count, masked] = settings.subarray(8) as unknown as [number, number];
    for (let i = sample * maxBiasedTokens; i < sample * maxBiasedTokens + count; i++) logits[tokens[i]!]! += values[i]!;
    if (masked === 0) return logits;
    const words = mask.subarray(sample * allowedWords(logits.length));
    for (let id = 0; id < logits.length; id++) if (((words[id >> 5]! >> (id & 31)) & 1) === 0) logits[id] = -Infinity;
    return logits;
  };
}

/** One choice. `logits` is overwritten; `settings` as the header says; `draw` gives a number in [0, 1). */
function chooseToken(logits: Float32Array, history: Int32Array, settings: Float32Array, draw: () => number): number {
  const [temperature, topK, topP, minP] = settings as unknown as [number, number, number, number];
  penalize(logits, history, settings);
  const best = greatest(logits);
  if (temperature <= 0 || best === undefined) return best ?? 0;
  for (let id = 0; id < logits.length; id++) logits[id] = logits[id]! / temperature;

  const max = logits[best]!;
  // Nothing can be weighed against an infinity.
  if (!Number.isFinite(max)) return best;

  const byLogit = (a: number, b: number): number => logits[b]! - logits[a]! || a - b;
  let kept = [...logits.keys()].filter((id) => !Number.isNaN(logits[id]));
  if (topK > 0 && topK < logits.length) kept = kept.sort(byLogit).slice(0, topK);
  const weight = (id: number): number => Math.exp(logits[id]! - max);
  if (topP < 1) kept = nucleus(kept.sort(byLogit), weight, topP);
  // The weight of the most likely token is 1.
  if (minP > 0) kept = kept.filter((id) => weight(id) >= minP * weight(best));
  return pick(
    kept.sort((a, b) => a - b),
    weight,
    draw(),
  );
}

/** Makes tokens less likely that are in `history` already. */
function penalize(logits: Float32Array, history: Int32Array, settings: Float32Array): void {
  const [repetition, presence, frequency, madeFrom] = settings.subarray(4) as unknown as [
    number,
    number,
    number,
    number,
  ];
  if (repetition !== 1) {
    for (const id of new Set(history)) {
      const logit = logits[id];
      if (logit !== undefined) logits[id] = logit > 0 ? logit / repetition : logit * repetition;
    }
  }
  if (presence === 0 && frequency === 0) return;
  const made = history.subarray(madeFrom);
  for (const id of new Set(made)) logits[id]! -= presence;
  for (const id of made) logits[id]! -= frequency;
}

/** The id of the largest logit, the smallest such id; undefined where all are NaN. */
function greatest(logits: Float32Array): number | undefined {
  let best: number | undefined;
  logits.forEach((logit, id) => {
    if (!Number.isNaN(logit) && (best === undefined || logit > logits[best]!)) best = id;
  });
  return best;
}

/** The shortest prefix whose weights reach `share` of all; at least one. */
function nucleus(sorted: readonly number[], weight: (id: number) => number, share: number): number[] {
  const enough = share * sorted.reduce((sum, id) => sum + weight(id), 0);
  let sum = 0;
  const end = sorted.findIndex((id) => (sum += weight(id)) >= enough);
  return sorted.slice(0, end < 0 ? sorted.length : end + 1);
}

/** The first id at which the running sum of weights exceeds `at` (in [0, 1)) of the total. */
function pick(ids: readonly number[], weight: (id: number) => number, at: number): number {
  const target = at * ids.reduce((sum, id) => sum + weight(id), 0);
  let sum = 0;
  return ids.find((id) => (sum += weight(id)) > target) ?? ids.at(-1)!;
}
