/**
 * sample: the next token of every sample. In the order of Hugging Face: penalties, temperature, top-k, top-p, min-p, then
 * one draw of a counter-based generator: a token depends on its logits, history, seed and position, on nothing else.
 *
 * settings f32[samples, 8] = temperature (0 or less: greedy), topK (0: off), topP (1: off), minP (0: off),
 * repetitionPenalty (1: off), presencePenalty (0: off), frequencyPenalty (0: off), the position of the first token made:
 * the last two count the tokens from there on, as OpenAI defines them. seeds i32[samples, 2] = low and high half of the seed.
 */
import { tensorBytes } from '../ir/tensor.js';
import { uniform } from '../util/prng.js';
import { perSocket, type OperatorDefinition } from './definition.js';
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
export const settingsPerSample = 8;

export const sample: OperatorDefinition<'sample'> = {
  kind: 'sample',
  reads: ['logits', 'index', 'slots', 'positions', 'history', 'settings', 'seeds'],
  optionalReads: [],
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
    return { [writes.token]: indexVector(samples) };
  },

  cost({ reads, writes }, typeOf, at) {
    const logits = tensorBytes(typeOf(reads.logits), at);
    const touched = [typeOf(reads.logits), typeOf(reads.settings), typeOf(reads.seeds), typeOf(writes.token)];
    // One comparison a logit; the history is read only under a penalty.
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
    for (let s = 0; s < samples; s++) {
      const row = index![s]!;
      const position = positions![row]!;
      if (position < 0) {
        token[s] = 0;
        continue;
      }
      const from = slots![row]! * context;
      token[s] = chooseToken(
        logits.slice(s * vocab, (s + 1) * vocab),
        history.subarray(from, from + position + 1),
        settings.subarray(s * settingsPerSample, (s + 1) * settingsPerSample),
        () => uniform(position, [seeds[2 * s]!, seeds[2 * s + 1]!]),
      );
    }
  }),
};

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
