/** What `bench` prints: the machine, what was checked, a table, and in words how the sides compare. And the same as JSON. */
import { parameterCount } from '../models/tensors.js';
import { spreadOf, type Spread } from '../util/statistics.js';
import { formatTable, type Column } from '../util/table.js';
import { formatBytes, formatCount, significant } from '../util/units.js';
import type { BenchReport, Profile } from './bench.js';
import type { PeerAgreement } from './correctness.js';
import type { Gate, GateResult } from './gate.js';
import type { PeerKind } from './peer.js';
import { fastest, type Duel, type Result } from './results.js';
import type { Plan } from './settings.js';
import { engineTitles, identityName, peerNames, variantName, workloadName, type Identity } from './workload.js';

/** Lines for people. */
export function reportLines(report: BenchReport): string[] {
  return [
    ...headerLines(report),
    '',
    ...tableLines(report),
    ...skippedLines(report.plan),
    ...afterTable([...loopingLines(report.results), ...report.duels.map(duelLine)]),
    ...report.profiles.flatMap((profile) => afterTable(profileLines(profile))),
  ];
}

/** A line for every stage, and what they add up to; what is missing to the time of a token is between kernel calls. */
export function profileLines({ identity, workload, stages }: Profile): string[] {
  const total = stages.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0);
  const us = (nanoseconds: number): string => significant(nanoseconds / 1000 / workload.tokens);
  const rows = stages.map(({ kernel, stage, count, nanoseconds }) => [
    kernel,
    stage,
    significant(count / workload.tokens),
    us(nanoseconds),
    `${significant((nanoseconds * 100) / total)}%`,
  ]);
  const titles = [{ title: 'kernel' }, { title: 'stage' }, { title: 'times per token', ...right }];
  return [
    `stages of ${workloadName(workload)}, ${identityName(identity)}, counted by the kernels; with waiting for each other`,
    ...formatTable([...titles, { title: 'us per token', ...right }, { title: 'share', ...right }], rows),
    `in all ${us(total)} us per token`,
  ];
}

function afterTable(lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', ...lines];
}

function headerLines({
  machine,
  config,
  synthetic,
  backend,
  quant,
  kv,
  plan,
  correctness,
  ...rest
}: BenchReport): string[] {
  const { bandwidth, rounds, gates } = rest;
  // Of a mixed model `quant` is what most matrices have.
  const kept = rest.compressed ? ` (${quant === 'bf16' ? '' : 'bf16 ones '}kept in bf16z)` : '';
  const weights = `${synthetic ? 'random ' : ''}${quant} weights${kept}, KV cache in ${kv}`;
  const made = `${formatCount(parameterCount(config))} parameters, ${weights}, context ${plan.limits.context}`;
  const lines = [
    `${machine.cpu}, ${counted(machine.cores, 'core')}, ${machine.instructionSet}; ${machine.compiler ?? 'no compiler'}; Node ${machine.node}`,
    `${config.name}: ${made}; backend ${backend}; ${counted(rounds, 'round')}, interleaved`,
    `checked: ${counted(correctness.variants, 'variant')}, the same ${counted(correctness.tokens, 'token')}, ` +
      'logits equal bit for bit where threads are equally many',
  ];
  lines.push(...correctness.peers.map(agreementLine));
  lines.push(...gateLines(gates));
  if (bandwidth !== null) {
    const { threads, measured, ofWeights } = bandwidth;
    const by = `with ${counted(threads, 'thread')}, measured ${measured.length} times, between the runs`;
    lines.push(`read bandwidth: ${byteRates(measured)} ${by}`);
    if (ofWeights.length > 0) lines.push(`of the weights alone: ${byteRates(ofWeights)}, around long runs`);
  }
  return lines;
}

function byteRates(measured: readonly number[]): string {
  const { median, min, max } = spreadOf(measured);
  return `${formatBytes(median)}/s (${formatBytes(min)}/s to ${formatBytes(max)}/s)`;
}

function agreementLine({ peer, equalTokens, tokens, logitDifference }: PeerAgreement): string {
  const { kind, release, system } = peer;
  const who =
    kind.engine === 'pytorch'
      ? `PyTorch ${release} ${kind.mode} (${system}) in ${kind.weights}`
      : `llama.cpp ${release}`;
  return (
    `checked: ${who}, ${equalTokens} of ${counted(tokens, 'token')} the same, ` +
    `logits differ by at most ${significant(logitDifference)} of their range`
  );
}

/** One where all passed, else one for each that failed. */
function gateLines(gates: readonly GateResult[]): string[] {
  const [first] = gates;
  if (first === undefined) return [];
  const numbers = ({ meanKl, nllShift }: Gate): string =>
    `KL divergence ${meanKl.toExponential(1)}, negative log-likelihood off by ${nllShift.toExponential(1)}`;
  const failed = gates.filter(({ gate }) => gate === 'failed');
  if (failed.length > 0) {
    return failed.map((result) => `FAILED: ${identityName(result.identity)}, against float32: ${numbers(result)}`);
  }
  const worst = gates.reduce((a, b) => (Math.abs(b.meanKl) > Math.abs(a.meanKl) ? b : a), first);
  return [`checked: ${counted(gates.length, 'variant')} against float32, at most: ${numbers(worst)}`];
}

function counted(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}

interface ResultColumn extends Column {
  readonly cell: (result: Result) => string;
  /** Left out where no result has it. */
  readonly optional?: true;
}

const none = '-';
const right = { align: 'right' } as const;

const columns: readonly ResultColumn[] = [
  { title: 'schedule', cell: ({ identity }) => variantName(identity) },
  { title: 'threads', ...right, cell: ({ identity }) => String(identity.threads) },
  { title: 'test', cell: ({ workload }) => workloadName(workload) },
  { title: 'tok/s', ...right, cell: ({ tokensPerSecond }) => significant(tokensPerSecond.median) },
  { title: '(min..max)', cell: ({ tokensPerSecond }) => range(tokensPerSecond) },
  {
    title: 'predicted',
    ...right,
    optional: true,
    cell: ({ predicted, tokensPerSecond }) =>
      orNone(predicted, (rate) => `${significant(rate)} (${percent(rate / tokensPerSecond.median - 1)})`),
  },
  { title: 'us/token', ...right, cell: ({ usPerToken }) => significant(usPerToken.median) },
  { title: 'calls', ...right, cell: ({ perToken }) => orNone(perToken?.kernelCalls, significant) },
  { title: 'barriers', ...right, cell: ({ perToken }) => orNone(perToken?.barriers, significant) },
  { title: 'GB/s', ...right, cell: ({ bytesPerSecond }) => orNone(bytesPerSecond, (rate) => significant(rate / 1e9)) },
  {
    title: 'share',
    ...right,
    optional: true,
    cell: ({ bandwidthFraction }) => orNone(bandwidthFraction?.median, (part) => `${significant(part * 100)}%`),
  },
  {
    title: 'vs operator',
    ...right,
    optional: true,
    cell: ({ ratioToOperator }) => orNone(ratioToOperator, timesMedian),
  },
  ...peerNames.map((name) => ({
    title: `vs ${engineTitles[name]}`,
    ...right,
    optional: true as const,
    cell: ({ ratioToPeer }: Result) => orNone(ratioToPeer.get(name), timesMedian),
  })),
];

/** Header and one line per result. */
export function tableLines({ results, gates }: Pick<BenchReport, 'results' | 'gates'>): string[] {
  const shown = [...columns, gateColumn(gates)].filter(
    ({ optional, cell }) => optional !== true || results.some((one) => cell(one) !== none),
  );
  return formatTable(
    shown,
    results.map((result) => shown.map(({ cell }) => cell(result))),
  );
}

/** Contexts that were asked for and are not in the table. */
function skippedLines({ skipped, workloads }: Plan): string[] {
  const tokens = workloads.find(({ kind }) => kind === 'decode')?.tokens ?? 0;
  return skipped.map(({ depth, need }) => {
    const test = workloadName({ kind: 'decode', tokens, depth });
    if (need === undefined) return `${test} left out: more positions than the KV cache has`;
    return `${test} left out: ${formatBytes(need.needed)} of the device's memory are needed, ${formatBytes(need.free)} are free`;
  });
}

/** Shown where something failed. */
function gateColumn(gates: readonly GateResult[]): ResultColumn {
  const failed = new Set(gates.filter(({ gate }) => gate === 'failed').map(({ identity }) => identityName(identity)));
  return {
    title: 'gate',
    optional: true,
    cell: ({ identity }) => (failed.has(identityName(identity)) ? 'FAILED' : none),
  };
}

/** `+3%` */
function percent(part: number): string {
  return `${part < 0 ? '-' : '+'}${Math.round(Math.abs(part) * 100)}%`;
}

function orNone<T>(value: T | null | undefined, show: (value: T) => string): string {
  return value === null || value === undefined ? none : show(value);
}

function range({ min, max }: Spread): string {
  return `(${significant(min)}..${significant(max)})`;
}

function timesMedian({ median }: Spread): string {
  return `${significant(median)}x`;
}

/** `3.1x (2.9..3.4)` */
function times(ratio: Spread): string {
  return `${timesMedian(ratio)} ${range(ratio)}`;
}

/** How many times as fast ours is at its best as the schedule `operator`, for every workload in which both ran. */
function loopingLines(results: readonly Result[]): string[] {
  const ours = results.filter(({ identity }) => identity.engine === 'kloop');
  return [...new Set(ours.map(({ workload }) => workload))].flatMap((workload) => {
    const same = ours.filter((result) => result.workload === workload);
    const best = fastest(same, ({ tokensPerSecond }) => tokensPerSecond.median);
    if (best === undefined || best.ratioToOperator === null || variantName(best.identity) === 'operator') return [];
    const { identity, ratioToOperator } = best;
    return `${workloadName(workload)}: ${identityName(identity)} is ${times(ratioToOperator)} as fast as operator`;
  });
}

function duelLine({ workload, ours, peer, ratio }: Duel): string {
  return `${workloadName(workload)}: ${identityName(ours)} is ${times(ratio)} as fast as ${identityName(peer)}`;
}

/** Absent fields are null, so that all have the same. */
function identityJson(identity: Identity): object {
  const { engine, threads } = identity;
  const schedule = engine === 'kloop' ? identity.schedule : null;
  const mode = engine === 'llama.cpp' ? null : (identity.mode ?? null);
  return { engine, schedule, mode, threads };
}

function kindJson(kind: PeerKind): object {
  return { name: kind.engine, mode: kind.engine === 'pytorch' ? kind.mode : null };
}

/** The one object of `--json`: everything that is printed, and every run. */
export function reportJson(report: BenchReport): object {
  const { machine, config, plan, correctness, bandwidth, idle } = report;
  return {
    model: config.name,
    synthetic: report.synthetic,
    parameters: parameterCount(config),
    quant: report.quant,
    compressed: report.compressed,
    kv_format: report.kv,
    backend: report.backend,
    context: plan.limits.context,
    rows: plan.limits.rows,
    depth: plan.depth,
    skipped_contexts: plan.skipped.map(({ depth, need }) => ({
      context: depth,
      reason: need === undefined ? 'positions' : 'memory',
      needed_bytes: need?.needed ?? null,
      free_bytes: need?.free ?? null,
    })),
    rounds: report.rounds,
    machine: {
      cpu: machine.cpu,
      architecture: machine.architecture,
      cores: machine.cores,
      processors: machine.processors,
      instruction_set: machine.instructionSet,
      compiler: machine.compiler,
      memory_bytes: machine.memoryBytes,
      node: machine.node,
    },
    correctness: {
      variants: correctness.variants,
      equal_tokens: correctness.tokens,
      peers: correctness.peers.map(({ peer, tokens, equalTokens, logitDifference, tolerance }) => ({
        ...kindJson(peer.kind),
        tokens,
        equal_tokens: equalTokens,
        logit_difference: logitDifference,
        tolerance,
      })),
    },
    gates: report.gates.map(({ identity, gate, meanKl, nllShift }) => ({
      ...identityJson(identity),
      gate,
      mean_kl: meanKl,
      nll_shift: nllShift,
    })),
    bandwidth:
      bandwidth === null
        ? null
        : {
            threads: bandwidth.threads,
            buffer_bytes: bandwidth.bufferBytes,
            bytes_per_second: spreadOf(bandwidth.measured),
            measured: bandwidth.measured,
            weights_bytes_per_second: bandwidth.ofWeights.length === 0 ? null : spreadOf(bandwidth.ofWeights),
          },
    peers: report.peers.map(({ kind, release, system, weights, cache }) => ({
      ...kindJson(kind),
      ...{ release, system, weights, cache },
    })),
    idle: idle === null ? null : Object.fromEntries(idle),
    profile: report.profiles.flatMap(({ workload, stages }) =>
      stages.map(({ kernel, stage, count, nanoseconds }) => ({
        test: workloadName(workload),
        ...{ kernel, stage, count, nanoseconds },
      })),
    ),
    results: report.results.map(resultJson),
    best: report.duels.map(({ workload, ours, peer: theirs, ratio }) => ({
      test: workloadName(workload),
      ...identityJson(ours),
      peer: identityJson(theirs),
      ratio_to_peer: ratio,
    })),
  };
}

function resultJson({ identity, workload, perToken, samples, ...figures }: Result): object {
  return {
    ...identityJson(identity),
    test: workloadName(workload),
    tokens: workload.tokens,
    tokens_per_second: figures.tokensPerSecond,
    predicted_tokens_per_second: figures.predicted ?? null,
    us_per_token: figures.usPerToken,
    kernel_calls_per_token: perToken?.kernelCalls ?? null,
    barriers_per_token: perToken?.barriers ?? null,
    bytes_per_token: perToken?.bytesRead ?? null,
    bytes_per_second: figures.bytesPerSecond,
    bandwidth_fraction: figures.bandwidthFraction,
    wait_fraction: figures.waitFraction,
    ratio_to_operator: figures.ratioToOperator,
    ratio_to_peer: figures.ratioToPeer.size === 0 ? null : Object.fromEntries(figures.ratioToPeer),
    rounds: samples.map(({ milliseconds, tokens, counts }) => ({
      milliseconds,
      tokens,
      ...(counts === undefined
        ? {}
        : {
            kernel_calls: counts.kernelCalls,
            barriers: counts.barriers,
            bytes_read: counts.bytesRead,
            wait_ns: counts.waitNs,
          }),
    })),
  };
}
