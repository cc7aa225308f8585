/**
 * What Prometheus reads. Names after the prefix are those of vLLM's server where the quantity is the same, so that
 * dashboards and inference gateways made for it work; the kernel counters are ours, read where launches happen.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Counters } from '../backends/backend.js';
import type { ServedModel } from './served-model.js';

const latencyBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
const tokenBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/** Of one complete text. */
export interface TextCounts {
  readonly reason: string;
  readonly prompt: number;
  readonly cached: number;
  readonly seconds: number;
}

export class ServerMetrics {
  readonly #registry = new Registry();
  readonly #prefix: string;
  readonly #success: Counter;
  readonly #failed: Counter;
  readonly #promptTokens: Counter;
  readonly #madeTokens: Counter;
  readonly #cacheQueries: Counter;
  readonly #cacheHits: Counter;
  readonly #queueTime: Histogram;
  readonly #firstToken: Histogram;
  readonly #interToken: Histogram;
  readonly #latency: Histogram;
  readonly #responses: Counter;

  /** `prefix` as in `kloop:`; letters, digits, underscores and colons. */
  constructor(models: () => readonly ServedModel[], prefix = 'kloop:') {
    this.#prefix = prefix;
    this.#success = this.#counter('request_success_total', 'Texts made, by why they ended', ['finished_reason']);
    this.#failed = this.#counter('request_failure_total', 'Texts that were not completed, by why', ['reason']);
    this.#promptTokens = this.#counter('prompt_tokens_total', 'Prompt tokens of complete texts');
    this.#madeTokens = this.#counter('generation_tokens_total', 'Tokens made');
    this.#cacheQueries = this.#counter('prefix_cache_queries_total', 'Prompt tokens looked for in the cache');
    this.#cacheHits = this.#counter('prefix_cache_hits_total', 'Prompt tokens found in the cache');
    this.#queueTime = this.#histogram('request_queue_time_seconds', 'Wait for a slot', latencyBuckets);
    this.#firstToken = this.#histogram(
      'time_to_first_token_seconds',
      'From the request to its first token',
      latencyBuckets,
    );
    this.#interToken = this.#histogram('inter_token_latency_seconds', 'Time per token after the first', tokenBuckets);
    this.#latency = this.#histogram('e2e_request_latency_seconds', 'From the request to its end', latencyBuckets);
    this.#responses = new Counter({
      name: `${prefix}http_responses_total`,
      help: 'Responses by route and status',
      labelNames: ['route', 'status'],
      registers: [this.#registry],
    });
    this.#gauges(models);
    this.#kernelCounters(models);
  }

  started(model: string, queueSeconds: number): void {
    this.#queueTime.observe({ model_name: model }, queueSeconds);
  }

  firstTokens(model: string, tokens: number, seconds: number): void {
    this.#firstToken.observe({ model_name: model }, seconds);
    this.#madeTokens.inc({ model_name: model }, tokens);
  }

  /** `tokens` came together, `seconds` after the ones before them. */
  moreTokens(model: string, tokens: number, seconds: number): void {
    this.#interToken.observe({ model_name: model }, seconds / tokens);
    this.#madeTokens.inc({ model_name: model }, tokens);
  }

  ended(model: string, { reason, prompt, cached, seconds }: TextCounts): void {
    const labels = { model_name: model };
    this.#success.inc({ ...labels, finished_reason: reason });
    this.#promptTokens.inc(labels, prompt);
    this.#cacheQueries.inc(labels, prompt);
    this.#cacheHits.inc(labels, cached);
    this.#latency.observe(labels, seconds);
  }

  failed(model: string, reason: string): void {
    this.#failed.inc({ model_name: model, reason });
  }

  /** `route`: the pattern, never the path, of which clients could make any number. */
  responded(route: string, status: number): void {
    this.#responses.inc({ route, status });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #counter(name: string, help: string, labels: readonly string[] = []): Counter {
    const labelNames = ['model_name', ...labels];
    return new Counter({ name: this.#prefix + name, help, labelNames, registers: [this.#registry] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    const labelNames = ['model_name'];
    return new Histogram({ name: this.#prefix + name, help, labelNames, buckets, registers: [this.#registry] });
  }

  #gauges(models: () => readonly ServedModel[]): void {
    const gauge = (name: string, help: string, read: (model: ServedModel) => number): void => {
      const made: Gauge = new Gauge({
        name: this.#prefix + name,
        help,
        labelNames: ['model_name'],
        registers: [this.#registry],
        collect: () => {
          // A model that was unloaded would keep what it had last.
          made.reset();
          for (const served of models()) made.set({ model_name: served.id }, read(served));
        },
      });
    };
    gauge('num_requests_running', 'Texts that have a slot', ({ pool }) => pool.running);
    gauge('num_requests_waiting', 'Texts that wait for a slot', ({ pool }) => pool.waiting);
    gauge('kv_cache_usage_perc', 'Share of the slots in use, 0 to 1', ({ pool }) => pool.running / pool.slots);
  }

  #kernelCounters(models: () => readonly ServedModel[]): void {
    const counter = (name: string, help: string, read: (counters: Counters) => number): void => {
      const made: Counter = new Counter({
        name: this.#prefix + name,
        help,
        labelNames: ['model_name'],
        registers: [this.#registry],
        collect: () => {
          made.reset();
          for (const { id, model } of models()) made.inc({ model_name: id }, read(model.counters));
        },
      });
    };
    counter('kernel_calls_total', 'Kernel calls', ({ kernelCalls }) => kernelCalls);
    counter('kernel_barriers_total', 'Barriers inside of kernel calls', ({ barriers }) => barriers);
    counter('kernel_read_bytes_total', 'Weight and state bytes that kernels read', ({ bytesRead }) => bytesRead);
    counter('kernel_wait_seconds_total', 'Time workers waited for each other', ({ waitNs }) => waitNs / 1e9);
  }
}
