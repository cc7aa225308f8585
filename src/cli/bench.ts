/** `kloop bench MODEL|PRESET`: the four schedules measured in turn, with the machine's bandwidth and a peer beside them. */
import { InvalidArgumentError, Option } from 'commander';
import { runBench, type BenchOptions, type BenchReport } from '../bench/bench.js';
import { reportJson, reportLines } from '../bench/report.js';
import type { WeightsMemory } from '../backends/backend.js';
import { backendNames } from '../backends/registry.js';
import { engineTitles, peerNames, type PeerName } from '../bench/workload.js';
import { schedules, type DType, type Schedule } from '../ir/program.js';
import { listenForInterrupt } from './interrupt.js';
import { defined, integer, kvOption, listOf, place, quantNames, weightsMemoryOption } from './options.js';
import { note, paint, print, printJson, withProgressBar } from './output.js';
import { refusePricedOnly } from './priced-only.js';
import type { Verb } from './verb.js';

interface Flags {
  readonly quant?: DType;
  readonly weightsMemory?: WeightsMemory;
  readonly kv?: DType;
  readonly schedules?: readonly Schedule[];
  readonly uncompressed?: boolean;
  readonly singleLaunches?: boolean;
  readonly threads?: readonly number[];
  readonly backend?: string;
  readonly tokens?: number;
  readonly promptTokens?: number;
  readonly depth?: number;
  readonly contexts?: readonly number[];
  readonly rounds: number;
  readonly profile?: boolean;
  readonly context?: number;
  readonly peer?: readonly PeerName[];
  readonly cacheDir?: string;
  readonly json?: boolean;
}

/** A side that should rest and uses more than this part of a core spoils what is measured on the other. */
const busyCores = 0.05;

export const bench: Verb = (program) => {
  program
    .command('bench')
    .description('measure schedules, threads and other engines against each other, and against the memory bandwidth')
    .argument(
      '[model]',
      '`demo`, a directory, a .gguf file, OWNER/NAME that has been pulled, or a preset, which gets random weights',
      'demo',
    )
    .addOption(new Option('--quant <format>', "format of the weights (default: the checkpoint's)").choices(quantNames))
    .addOption(weightsMemoryOption())
    .addOption(kvOption())
    .option('--schedules <list>', 'comma-separated (default: operator,layer,looped,response)', scheduleList)
    .option(
      '--uncompressed',
      'measure also with bf16 weights as they are, not in the fewer bytes they are kept in (cpu)',
    )
    .option('--single-launches', 'measure operator also with a launch per kernel, not as one CUDA graph (cuda)')
    .option('--threads <list>', 'comma-separated (default: one per core; with --peer also fewer)', threadList)
    .addOption(new Option('--backend <backend>', 'what runs the kernels (default: auto)').choices(backendNames))
    .option('--tokens <n>', 'tokens to decode; 0 leaves it out (default: 128)', integer(0))
    .option('--prompt-tokens <n>', 'tokens of a prompt; 0 leaves it out (default: 512)', integer(0))
    .option('--depth <n>', 'tokens in the context before decoding (default: 8; with cuda 32)', integer(1))
    .option(
      '--contexts <list>',
      'more depths to decode at, such as 1024,4096,16384; too long ones are left out',
      depthList,
    )
    .option('--rounds <n>', 'how often everything is measured', integer(1, 1000), 5)
    .option('--profile', 'also tell where the time of every test goes, by stages of the kernels')
    .option('--context <n>', 'positions of the KV cache (default: as many as needed)', integer(1))
    .option(
      '--peer <list>',
      `measure beside ours, on the same weights: ${peerNames.join(', ')}, or both, separated by commas`,
      peerList,
    )
    .option('--cache-dir <dir>', 'directory for weights and compiled code', place)
    .option('--json', 'print one JSON object')
    .action(benchAction);
};

/** `operator,looped`. Throws InvalidArgumentError. */
export function scheduleList(text: string): Schedule[] {
  return listOf(text, (item) => {
    const schedule = schedules.find((name) => name === item);
    if (schedule !== undefined) return schedule;
    throw new InvalidArgumentError(`Allowed choices are ${schedules.join(', ')}, separated by commas.`);
  });
}

/** `1,2`. Throws InvalidArgumentError. */
export function threadList(text: string): number[] {
  return listOf(text, integer(1, 256));
}

/** `1024,4096`. Throws InvalidArgumentError. */
export function depthList(text: string): number[] {
  return listOf(text, integer(1));
}

/** `llama.cpp,pytorch`; given again, it adds. Throws InvalidArgumentError. */
export function peerList(text: string, earlier: readonly PeerName[] = []): PeerName[] {
  const list = listOf(text, (item) => {
    const peer = peerNames.find((name) => name === item);
    if (peer !== undefined) return peer;
    throw new InvalidArgumentError(`Allowed choices are ${peerNames.join(', ')}, separated by commas.`);
  });
  return [...new Set([...earlier, ...list])];
}

async function benchAction(model: string, { json = false, peer: peers = [], ...flags }: Flags): Promise<void> {
  refusePricedOnly(model);
  using interrupt = listenForInterrupt();
  const report = await withProgress({
    ...defined(flags),
    rounds: flags.rounds,
    peers,
    model,
    signal: interrupt.signal,
  });
  if (json) printJson(reportJson(report));
  else for (const line of reportLines(report)) print(line);
  warnAboutBusySide(report);
  if (report.gates.some(({ gate }) => gate === 'failed')) {
    note('kloop: what failed the check against float32 is no result');
    process.exitCode = 1;
  }
}

function withProgress(options: BenchOptions): Promise<BenchReport> {
  return withProgressBar((bar) =>
    runBench({
      ...options,
      onProgress: (label, done, total, unit) => bar.update(label, done, total, unit),
      onNotice: (line) => {
        bar.end();
        note(paint(process.stderr, 'yellow', `kloop: ${line}`));
      },
    }),
  );
}

function warnAboutBusySide({ idle }: BenchReport): void {
  for (const [engine, cores] of idle ?? []) {
    if (cores === null || cores <= busyCores) continue;
    const busy = `${engineTitles[engine]} used ${cores.toFixed(2)} cores while another was timed`;
    note(`kloop: ${busy}; the ratios are not to be trusted`);
  }
}
