/** The result of a load run, in the block that `vllm bench serve` prints, so that tools that read it read ours. */
import { median, percentile } from '../../util/statistics.js';
import type { LoadResult } from './load.js';

/** Times in milliseconds. */
export interface Latency {
  readonly mean: number;
  readonly median: number;
  readonly p99: number;
}

export interface ServeReport {
  readonly successful: number;
  readonly failed: number;
  readonly seconds: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Per second. */
  readonly requestThroughput: number;
  readonly outputThroughput: number;
  readonly totalThroughput: number;
  readonly ttft: Latency;
  /** Time per output token, the first one not counted. */
  readonly tpot: Latency;
  /** Between the pieces of a stream, of which one may hold several tokens. */
  readonly itl: Latency;
  /** The first of the failures. */
  readonly error?: string;
}

export function reportOf({ seconds, requests }: LoadResult): ServeReport {
  const good = requests.filter(({ error }) => error === undefined);
  const error = requests.find((request) => request.error !== undefined)?.error;
  const sum = (pick: (request: (typeof good)[number]) => number): number =>
    good.reduce((total, request) => total + pick(request), 0);
  const [inputTokens, outputTokens] = [sum((one) => one.inputTokens), sum((one) => one.outputTokens)];
  const perToken = good
    .filter((one) => one.outputTokens > 1)
    .map((one) => (one.latencyMs - one.firstTokenMs) / (one.outputTokens - 1));
  return {
    successful: good.length,
    failed: requests.length - good.length,
    seconds,
    inputTokens,
    outputTokens,
    requestThroughput: good.length / seconds,
    outputThroughput: outputTokens / seconds,
    totalThroughput: (inputTokens + outputTokens) / seconds,
    ttft: latencyOf(good.map(({ firstTokenMs }) => firstTokenMs)),
    tpot: latencyOf(perToken),
    itl: latencyOf(good.flatMap(({ gapsMs }) => gapsMs)),
    ...(error === undefined ? {} : { error }),
  };
}

/** All 0 of no values. */
function latencyOf(values: readonly number[]): Latency {
  if (values.length === 0) return { mean: 0, median: 0, p99: 0 };
  const mean = values.reduce((total, value) => total + value, 0) / values.length;
  return { mean, median: median(values), p99: percentile(values, 99) };
}

const width = 50;

/** Labels, spelling and alignment are those of vLLM. */
export function reportLines(report: ServeReport): string[] {
  const number = (label: string, value: string): string => `${label.padEnd(40)} ${value.padEnd(10)}`.trimEnd();
  const latency = (title: string, name: string, { mean, median: middle, p99 }: Latency): string[] => [
    centered(title, '-'),
    number(`Mean ${name} (ms):`, mean.toFixed(2)),
    number(`Median ${name} (ms):`, middle.toFixed(2)),
    number(`P99 ${name} (ms):`, p99.toFixed(2)),
  ];
  return [
    centered(' Serving Benchmark Result ', '='),
    number('Successful requests:', String(report.successful)),
    number('Failed requests:', String(report.failed)),
    number('Benchmark duration (s):', report.seconds.toFixed(2)),
    number('Total input tokens:', String(report.inputTokens)),
    number('Total generated tokens:', String(report.outputTokens)),
    number('Request throughput (req/s):', report.requestThroughput.toFixed(2)),
    number('Output token throughput (tok/s):', report.outputThroughput.toFixed(2)),
    number('Total Token throughput (tok/s):', report.totalThroughput.toFixed(2)),
    ...latency('Time to First Token', 'TTFT', report.ttft),
    ...latency('Time per Output Token (excl. 1st token)', 'TPOT', report.tpot),
    ...latency('Inter-token Latency', 'ITL', report.itl),
    '='.repeat(width),
  ];
}

function centered(title: string, fill: string): string {
  const left = Math.floor((width - title.length) / 2);
  return fill.repeat(left) + title + fill.repeat(width - title.length - left);
}
