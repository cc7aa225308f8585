/** The same text a second time under another schedule: the tokens must be the same, only the time may differ. */
import type { Schedule } from '../ir/program.js';
import type { GenerationResult } from '../runtime/generation.js';
import type { LoadOptions } from '../runtime/load-model.js';
import { metricsOf, type Metrics } from '../runtime/metrics.js';
import type { Model } from '../runtime/model.js';
import type { GenerateOptions } from '../runtime/session.js';
import { KloopError } from '../util/errors.js';
import { significant } from '../util/units.js';
import { loadForCli } from './load.js';
import { rateOf } from './summary.js';

export interface Comparison {
  readonly schedule: Schedule;
  readonly metrics: Metrics;
  /** The schedule compared with, and how many times as fast it is; null where there was nothing to measure. */
  readonly against: Schedule;
  readonly speedup: number | null;
}

/** What the first run was and gave. */
export interface FirstRun {
  readonly model: Model;
  readonly result: GenerationResult;
}

/** Throws KloopError where the tokens differ: schedules must not change a result. */
export async function compareWith(
  spec: string,
  load: LoadOptions & { readonly schedule: Schedule },
  prompt: string,
  options: GenerateOptions,
  first: FirstRun,
): Promise<Comparison> {
  const model = await loadForCli(spec, load, { quiet: true });
  let result: GenerationResult;
  try {
    result = await model.session().generate(prompt, options).result;
  } finally {
    await model.close();
  }
  checkSame(load.schedule, result, first);
  const metrics = metricsOf(result);
  const [rate, firstRate] = [metrics.tokensPerSecond, metricsOf(first.result).tokensPerSecond];
  const speedup = rate === null || firstRate === null ? null : firstRate / rate;
  return { schedule: load.schedule, metrics, against: first.model.schedule, speedup };
}

function checkSame(schedule: Schedule, second: GenerationResult, { model, result: first }: FirstRun): void {
  // One that was stopped with Ctrl+C says nothing.
  if (second.finishReason === 'abort') return;
  const length = Math.max(first.tokens.length, second.tokens.length);
  let differing = 0;
  while (differing < length && first.tokens[differing] === second.tokens[differing]) differing++;
  if (differing === length) return;
  throw new KloopError(
    `the schedules ${model.schedule} and ${schedule} made different tokens, first at token ${differing} of the answer`,
    { hint: 'this is a bug of kloop, please report it with the command line' },
  );
}

/** `operator: 1234 tokens/s, 53 kernel calls per token; looped is 3.1x as fast, with the same tokens`. */
export function comparisonLine({ schedule, metrics, against, speedup }: Comparison): string {
  const ratio = speedup === null ? '' : `; ${against} is ${significant(speedup)}x as fast, with the same tokens`;
  return `${schedule}: ${rateOf(metrics)}${ratio}`;
}
