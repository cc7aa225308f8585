/** `kloop run MODEL --prompt TEXT`: makes one text, streams it, and says what it took. */
import { Option, type Command } from 'commander';
import { schedules, type Schedule } from '../ir/program.js';
import type { GenerationResult } from '../runtime/generation.js';
import { metricsOf } from '../runtime/metrics.js';
import type { Model } from '../runtime/model.js';
import { resolveSampling } from '../runtime/sampling.js';
import type { GenerateOptions } from '../runtime/session.js';
import { compareWith, comparisonLine, type Comparison } from './compare.js';
import { interruptedCode, listenForInterrupt } from './interrupt.js';
import { loadForCli } from './load.js';
import {
  addLoadOptions,
  addSamplingOptions,
  collect,
  defined,
  integer,
  loadOptionsOf,
  samplingOf,
  type LoadFlags,
  type SamplingFlags,
} from './options.js';
import { forTerminal, note, paint, printJson } from './output.js';
import { refusePricedOnly } from './priced-only.js';
import { promptText } from './prompt.js';
import { summaryLine } from './summary.js';
import type { Verb } from './verb.js';

interface Flags extends LoadFlags, SamplingFlags {
  readonly prompt: string;
  readonly maxTokens: number;
  readonly stop?: readonly string[];
  readonly ignoreEos?: boolean;
  readonly echo?: boolean;
  readonly compare?: Schedule;
  readonly json?: boolean;
}

export const run: Verb = (program) => {
  const command = program
    .command('run')
    .description('continue a text')
    .argument('<model>', '`demo`, a directory, a .gguf file, or OWNER/NAME that has been pulled')
    .requiredOption('--prompt <text>', 'the text to continue; - reads it from stdin')
    .option('--max-tokens <n>', 'tokens to make at most', integer(1), 256)
    .option('--stop <text>', 'ends the text; may be given several times', collect)
    .option('--ignore-eos', 'go on where the model would end');
  withOutputOptions(addLoadOptions(addSamplingOptions(command, '0'))).action(runAction);
};

function withOutputOptions(command: Command): Command {
  return command
    .option('--echo', 'print the prompt before the text (default: on a terminal)')
    .option('--no-echo', 'do not')
    .addOption(new Option('--compare <schedule>', 'run again under this schedule and compare').choices(schedules))
    .option('--json', 'print one JSON object instead of the text');
}

async function runAction(spec: string, flags: Flags): Promise<void> {
  using interrupt = listenForInterrupt();
  const { signal } = interrupt;
  const prompt = await promptText(flags.prompt);
  const options = generateOptions(flags, signal);
  const load = { ...loadOptionsOf(flags), slots: 1, signal };
  refusePricedOnly(spec);
  const model = await loadForCli(spec, load);
  let result: GenerationResult;
  try {
    result = flags.json === true ? await silently(model, prompt, options) : await aloud(model, prompt, options, flags);
  } finally {
    await model.close();
  }
  if (flags.json !== true) note(summaryLine(model, result));
  let comparison: Comparison | undefined;
  if (flags.compare !== undefined && result.finishReason !== 'abort') {
    comparison = await compareWith(spec, { ...load, schedule: flags.compare }, prompt, options, { model, result });
    if (flags.json !== true) note(comparisonLine(comparison));
  }
  if (flags.json === true) printJson(toJson(model, result, comparison));
  if (signal.aborted) process.exitCode = interruptedCode;
}

/** The seed is fixed here, so that a second run can have the same one. */
function generateOptions(flags: Flags, signal: AbortSignal): GenerateOptions {
  const { temperature = 0, topK, topP, minP } = flags;
  if (temperature === 0 && [topK, topP, minP].some((value) => value !== undefined)) {
    note('kloop: --top-k, --top-p and --min-p have no effect without --temperature');
  }
  const { maxTokens, stop, ignoreEos } = flags;
  return { ...resolveSampling(samplingOf(flags)), ...defined({ maxTokens, stop, ignoreEos }), signal };
}

function silently(model: Model, prompt: string, options: GenerateOptions): Promise<GenerationResult> {
  return model.session().generate(prompt, options).result;
}

/** Prints the text as it comes. */
async function aloud(model: Model, prompt: string, options: GenerateOptions, flags: Flags): Promise<GenerationResult> {
  const { stdout } = process;
  const generation = model.session().generate(prompt, options);
  if (flags.echo ?? stdout.isTTY) stdout.write(paint(stdout, 'dim', forTerminal(prompt, stdout)));
  for await (const { text } of generation) stdout.write(forTerminal(text, stdout));
  const result = await generation.result;
  stdout.write('\n');
  if (result.contextFull) {
    const { context } = model.limits;
    const { context: most } = model.config;
    const more = context < most ? `; --context makes it larger, up to ${most}` : ', the largest of this model';
    note(`kloop: the context of ${context} tokens is full${more}`);
  }
  return result;
}

function toJson(model: Model, result: GenerationResult, comparison: Comparison | undefined): object {
  const metrics = metricsOf(result);
  return {
    text: result.text,
    prompt_tokens: result.promptTokens,
    tokens: result.tokens,
    finish_reason: result.finishReason,
    context_full: result.contextFull,
    seed: result.seed,
    schedule: model.schedule,
    backend: model.backend,
    quant: model.quant,
    kv_format: model.kv,
    threads: model.threads,
    kernel_calls: metrics.kernelCalls,
    kernel_calls_per_token: metrics.kernelCallsPerToken,
    barriers_per_token: metrics.barriersPerToken,
    prefill_ms: result.timings.prefillMs,
    decode_ms: result.timings.decodeMs,
    tokens_per_second: metrics.tokensPerSecond,
    bytes_per_token: metrics.bytesPerToken,
    ...(comparison === undefined
      ? {}
      : {
          compare: {
            schedule: comparison.schedule,
            kernel_calls_per_token: comparison.metrics.kernelCallsPerToken,
            tokens_per_second: comparison.metrics.tokensPerSecond,
            speedup: comparison.speedup,
          },
        }),
  };
}
