/**
 * loopTokens: kernel looping one level up. The host's loop over tokens is written out (repeatTokens), then the calls of a
 * token are found to repeat and become one loop: the `response` schedule, one kernel call for many tokens. The loop ends
 * early when every sequence is done.
 *
 *   embed; decoder; lm_head; sample      -->      response: for token in 0..N-1 { embed; decoder; lm_head; sample }
 */
import type { Program } from '../ir/program.js';
import { UsageError } from '../util/errors.js';
import { loopOver } from './loop-calls/index.js';
import type { Pass } from './pass.js';
import { repeatTokens } from './repeat-tokens.js';

/** The input that says which sequences are done; what recurs as it ends the loop. */
const doneInput = 'done';

/**
 * A pass that makes a token step into a response of up to `tokens` tokens.
 * @throws UsageError for fewer than two tokens: one token is what the step makes
 */
export function loopTokens(tokens: number): Pass {
  if (!Number.isSafeInteger(tokens) || tokens < 2) {
    throw new UsageError(`a response of ${tokens} tokens cannot be looped`, { hint: 'ask for at least 2 tokens' });
  }
  return (program) => {
    const perToken = program.calls.length;
    const until = untilOf(program);
    return loopOver(repeatTokens(program, tokens), {
      units: { over: 'token', unitOf: (call) => Math.floor(call / perToken) },
      kernel: 'response',
      schedule: 'response',
      pass: 'loopTokens',
      ...(until === undefined ? {} : { until }),
    });
  };
}

function untilOf(program: Program): string | undefined {
  return program.recurrence.find(({ input }) => input === doneInput)?.output;
}
