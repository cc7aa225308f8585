/**
 * advance: the stop test after a sampled token, and the inputs of the next step. A sample that is done stays done, emits
 * -1 and becomes an idle row (position -1). Entries of -1 in stop_tokens are padding: no token has that id.
 */
import { perSocket, type OperatorDefinition } from './definition.js';
import { activationCost, expectIndices, indexVector, ints, leading } from './shared.js';

/** Length of `stop_tokens`. */
export const maxStopTokens = 16;

export const advance: OperatorDefinition<'advance'> = {
  kind: 'advance',
  reads: ['token', 'index', 'positions', 'remaining', 'done', 'stop_tokens'],
  optionalReads: [],
  updates: [],
  writes: ['next_tokens', 'next_positions', 'next_remaining', 'next_done', 'emitted'],
  attributes: {},
  split: { kind: 'single' },

  infer({ reads, writes }, typeOf) {
    const samples = leading(typeOf(reads.token));
    for (const read of ['token', 'index', 'remaining', 'done'] as const) {
      expectIndices(`advance: ${read}`, typeOf(reads[read]), [samples]);
    }
    expectIndices('advance: positions', typeOf(reads.positions), [leading(typeOf(reads.positions))]);
    expectIndices('advance: stop_tokens', typeOf(reads.stop_tokens), [maxStopTokens]);
    return Object.fromEntries(Object.values(writes).map((name) => [name, indexVector(samples)]));
  },

  cost({ reads, writes }, typeOf, at) {
    return activationCost(0, [...Object.values(reads), ...Object.values(writes)].map(typeOf), at);
  },

  evaluate: perSocket(({ reads, writes }, operand) => {
    const [token, index, positions] = [reads.token, reads.index, reads.positions].map((name) => ints(operand(name)));
    const remaining = ints(operand(reads.remaining));
    const done = ints(operand(reads.done));
    const stops = ints(operand(reads.stop_tokens));
    const put = (name: keyof typeof writes, sample: number, value: number): void => {
      ints(operand(writes[name]))[sample] = value;
    };
    for (let sample = 0; sample < done.length; sample++) {
      const idle = done[sample] !== 0;
      const left = idle ? remaining[sample]! : remaining[sample]! - 1;
      const ends = idle || left <= 0 || stops.includes(token![sample]!);
      put('emitted', sample, idle ? -1 : token![sample]!);
      put('next_tokens', sample, idle ? 0 : token![sample]!);
      put('next_positions', sample, ends ? -1 : positions![index![sample]!]! + 1);
      put('next_remaining', sample, left);
      put('next_done', sample, ends ? 1 : 0);
    }
  }),
};
