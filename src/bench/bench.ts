/**
 * One benchmark: the model under several schedules and numbers of threads, and llama.cpp on the same weights beside it.
 * First all of them must agree on what comes out, then they are timed in turn.
 */
import type { Backend, BandwidthMeter, StageTime, WeightsMemory } from '../backends/backend.js';
import { openBandwidthMeter } from '../backends/cpu/bandwidth.js';
import { physicalCores } from '../backends/cpu/processors.js';
import { defaultCacheDir } from '../backends/cache-dir.js';
import { chooseBackend } from '../backends/registry.js';
import { formatsByTensor, type Checkpoint } from '../checkpoint/checkpoint.js';
import { blockOf } from '../ir/formats.js';
import { schedules as allSchedules, type DType, type Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { parameterCount } from '../models/tensors.js';
import { chooseFormats, type Formats } from '../runtime/load-model.js';
import { AbortedError, messageOf, ToolchainError, UsageError } from '../util/errors.js';
import { availableMemory } from '../util/memory.js';
import { median } from '../util/statistics.js';
import { readHostMachine } from './calibrate/host-file.js';
import { compareWithPeer, requireEqual, type Claim, type PeerAgreement } from './correctness.js';
import { gateOf, gateTokens, logitsBehind, type GateResult } from './gate.js';
import { IdleWatch } from './idle.js';
import { describeMachine, type Machine } from './machine.js';
import { openPeer, requireRunner, type Peer, type PeerInfo } from './peer.js';
import { PeerVariant } from './peer-variant.js';
import { predictorFor } from './predict.js';
import { duelsOf, resultsOf, type Duel, type Result } from './results.js';
import { measureRounds, type Measurements } from './rounds.js';
import { planRun, threadCounts, type Plan, type Sizes } from './settings.js';
import { ggufOf, openSubject, type Subject } from './subject.js';
import { Variant } from './variant.js';
import { fillerTokens, gpuDepth, shortDepth, type Identity, type Workload } from './workload.js';

export interface BenchOptions extends Sizes {
  /** `demo`, a directory, OWNER/NAME that has been pulled, or the name of a preset. */
  readonly model: string;
  /** A name of the registry, or a backend that is ready. */
  readonly backend?: string | Backend;
  readonly quant?: DType;
  /** Default: own where there is room for that of every variant, else mapped for all. */
  readonly weightsMemory?: WeightsMemory;
  /** Format of the KV cache. */
  readonly kv?: DType;
  /** Default: all. */
  readonly schedules?: readonly Schedule[];
  /** Default: one per core; with a peer, the powers of two below that as well. */
  readonly threads?: readonly number[];
  readonly rounds: number;
  /** Tell the time of each stage of decoding, of one more variant that counts it. */
  readonly profile?: boolean;
  readonly peer?: 'llama.cpp';
  readonly cacheDir?: string;
  /** Hears of long work. */
  readonly onProgress?: OnProgress;
  readonly onNotice?: (line: string) => void;
  readonly signal?: AbortSignal;
}

export type OnProgress = (label: string, done: number, total: number, unit: 'bytes' | 'steps') => void;

export interface BenchReport {
  readonly machine: Machine;
  readonly config: ModelConfig;
  readonly synthetic: boolean;
  readonly backend: string;
  readonly quant: DType;
  readonly kv: DType;
  readonly plan: Plan;
  readonly rounds: number;
  readonly correctness: Correctness;
  /** Of every variant on a GPU. */
  readonly gates: readonly GateResult[];
  readonly bandwidth: Bandwidth | null;
  readonly peer: PeerInfo | null;
  /** Cores that the other side used while one was timed; null where the system does not tell. */
  readonly idle: { readonly oursCores: number | null; readonly peerCores: number | null } | null;
  readonly results: readonly Result[];
  readonly duels: readonly Duel[];
  readonly profile: Profile | null;
}

export interface Profile {
  readonly identity: Identity;
  readonly workload: Workload;
  readonly stages: readonly StageTime[];
}

export interface Correctness {
  readonly variants: number;
  /** Greedy tokens that all of them made alike. */
  readonly tokens: number;
  readonly peer: PeerAgreement | null;
}

export interface Bandwidth {
  readonly threads: number;
  readonly bufferBytes: number;
  /** Bytes per second, before the first round and after each. */
  readonly measured: readonly number[];
}

/** Greedy tokens that are compared, at most; more than a call of the `response` schedule makes. */
const comparedTokens = 64;

/**
 * Runs it all. Throws UsageError for options that do not fit, KloopError where results differ, AbortedError after
 * `signal`, and what opening and compiling the model throws.
 */
export async function runBench(options: BenchOptions): Promise<BenchReport> {
  const cleanup: (() => unknown)[] = [];
  try {
    return await new Bench(options, cleanup).run();
  } catch (error) {
    // Whatever it was that the stop interrupted.
    if (options.signal?.aborted === true) throw new AbortedError('the benchmark was stopped');
    throw error;
  } finally {
    for (const undo of cleanup.reverse()) await undo();
  }
}

class Bench {
  readonly #options: BenchOptions;
  readonly #cacheDir: string;
  readonly #cleanup: (() => unknown)[];

  constructor(options: BenchOptions, cleanup: (() => unknown)[]) {
    this.#options = options;
    this.#cacheDir = options.cacheDir ?? defaultCacheDir();
    this.#cleanup = cleanup;
  }

  async run(): Promise<BenchReport> {
    const { rounds, signal } = this.#options;
    // Before anything is written.
    if (this.#options.peer !== undefined) requireRunner();
    const backend = await this.#chooseBackend();
    const threads = this.#threads(backend);
    const subject = await this.#openSubject();
    const { config } = subject.checkpoint;
    const plan = this.#plan(config, backend);
    const formats = chooseFormats(subject.checkpoint, backend, this.#options, this.#notice);
    const { quant, kv } = formats;
    const peer = this.#options.peer === undefined ? undefined : await this.#openPeer(subject, quant, plan);
    const variants = await this.#prepare(subject, backend, formats, plan, threads);
    const correctness = await this.#check(variants, peer, config, formats, plan);
    const gates = backend.name === 'cuda' ? await this.#gates(variants, subject, formats, plan) : [];
    const meter = await this.#openMeter(backend, threads);
    const watches =
      peer === undefined ? undefined : { ours: new IdleWatch(process.pid), peer: new IdleWatch(peer.pid) };
    const peers = peer === undefined ? [] : threads.map((count) => new PeerVariant(peer, count));
    const measured = await measureRounds([...variants, ...peers], plan.workloads, {
      rounds,
      ...(meter === undefined ? {} : { measureBandwidth: () => meter.measure() }),
      ...(watches === undefined ? {} : { watch: (identity, run) => otherOf(watches, identity).during(run) }),
      onProgress: (done, total) => this.#progress('measuring', done, total, 'steps'),
      ...(signal === undefined ? {} : { signal }),
    });
    const bandwidth = bandwidthOf(meter, measured);
    const results = this.#predicted(subject, backend.name, formats, resultsOf(measured), bandwidth);
    return {
      machine: await describeMachine(),
      config,
      synthetic: subject.synthetic,
      backend: backend.name,
      quant,
      kv,
      plan,
      rounds,
      correctness,
      gates,
      bandwidth,
      peer: peer?.info ?? null,
      idle: watches === undefined ? null : { oursCores: watches.ours.cores, peerCores: watches.peer.cores },
      results,
      duels: duelsOf(results),
      profile: this.#options.profile === true ? await this.#profile(subject, backend, formats, plan, threads) : null,
    };
  }

  /** With what the simulator says, where this machine has been measured for it. */
  #predicted(
    { checkpoint }: Subject,
    backend: string,
    { quant, formatOf }: Formats,
    results: readonly Result[],
    bandwidth: Bandwidth | null,
  ): Result[] {
    const host = backend === 'cpu' ? readHostMachine(this.#cacheDir) : undefined;
    if (host === undefined) return [...results];
    const { config, weights } = checkpoint;
    const formats = formatsByTensor(weights, formatOf);
    const predict = predictorFor(
      { config, quant, ...(formats === undefined ? {} : { formats }) },
      host,
      bandwidth === null ? undefined : median(bandwidth.measured),
    );
    return results.map((result) => {
      const predicted = predict(result);
      return predicted === undefined ? result : { ...result, predicted };
    });
  }

  readonly #progress: OnProgress = (...progress) => this.#options.onProgress?.(...progress);
  readonly #notice = (line: string): void => this.#options.onNotice?.(line);

  #chooseBackend(): Promise<Backend> | Backend {
    const { backend = 'auto' } = this.#options;
    return typeof backend === 'string' ? chooseBackend(backend, this.#notice) : backend;
  }

  #plan(config: ModelConfig, { name }: Backend): Plan {
    const plan = planRun(config, this.#options, name === 'cuda' ? gpuDepth : shortDepth);
    const longest = Math.min(config.context, this.#options.context ?? config.context);
    for (const depth of plan.skipped) {
      this.#notice(`context ${depth} is left out: with the tokens after it, it is more than the ${longest} positions`);
    }
    return plan;
  }

  #threads({ name, capabilities }: Backend): readonly number[] {
    const { maxWorkers, defaultWorkers } = capabilities;
    const { threads, peer } = this.#options;
    if (threads === undefined) return peer === undefined ? [defaultWorkers] : threadCounts(defaultWorkers);
    const most = Math.max(...threads);
    if (most > 1 && maxWorkers === 1) {
      throw new UsageError(`the ${name} backend runs in one thread, not in ${most}`, { hint: 'leave out --threads' });
    }
    if (most > maxWorkers) this.#notice(`${most} threads share ${maxWorkers} processors`);
    return threads;
  }

  async #openSubject(): Promise<Subject> {
    const { model } = this.#options;
    const subject = await openSubject(model, this.#subjectOptions());
    this.#cleanup.push(() => subject.checkpoint.weights.close());
    return subject;
  }

  #subjectOptions(): Parameters<typeof openSubject>[1] {
    const { quant, signal } = this.#options;
    return {
      cacheDir: this.#cacheDir,
      onBytes: (label, done, total) => this.#progress(label, done, total, 'bytes'),
      onNotice: this.#notice,
      ...(quant === undefined ? {} : { quant }),
      ...(signal === undefined ? {} : { signal }),
    };
  }

  async #openPeer({ checkpoint }: Subject, quant: DType, { limits }: Plan): Promise<Peer> {
    const gguf = await ggufOf(checkpoint, quant, this.#subjectOptions());
    const peer = await openPeer({ gguf, threads: 1, context: limits.context });
    this.#cleanup.push(() => peer.close());
    this.#options.signal?.addEventListener('abort', () => void peer.close(), { once: true });
    return peer;
  }

  async #prepare(
    { checkpoint }: Subject,
    backend: Backend,
    formats: Formats,
    { limits }: Plan,
    threads: readonly number[],
  ): Promise<Variant[]> {
    const { schedules = allSchedules, signal } = this.#options;
    const total = threads.length * schedules.length;
    const weightsMemory = this.#options.weightsMemory ?? this.#chooseMemory(checkpoint, formats, total);
    const variants: Variant[] = [];
    for (const count of threads) {
      for (const schedule of schedules) {
        this.#progress('compiling and loading', variants.length, total, 'steps');
        const variant = await Variant.prepare(checkpoint, {
          ...{ backend, schedule, threads: count, formats, limits, cacheDir: this.#cacheDir, weightsMemory },
          onPack: (done, all) => this.#progress('packing weights', done, all, 'bytes'),
          ...(signal === undefined ? {} : { signal }),
        });
        this.#cleanup.push(() => variant.close());
        signal?.addEventListener('abort', () => variant.abort(), { once: true });
        variants.push(variant);
        if (signal?.aborted === true) throw new AbortedError('the benchmark was stopped');
      }
    }
    return variants;
  }

  /** The last of the schedules with the most threads: what is reported first. */
  async #profile(
    { checkpoint }: Subject,
    backend: Backend,
    formats: Formats,
    { limits, workloads }: Plan,
    threads: readonly number[],
  ): Promise<Profile> {
    const workload = workloads.find((one) => one.kind === 'decode');
    if (workload === undefined || backend.name !== 'cpu') {
      throw new UsageError('only decoding on the cpu backend has a profile', { hint: 'leave out --profile' });
    }
    const schedule = (this.#options.schedules ?? allSchedules).at(-1) ?? 'response';
    this.#progress('profiling', 0, 1, 'steps');
    const variant = await Variant.prepare(checkpoint, {
      ...{ backend, schedule, threads: Math.max(...threads), formats, limits, cacheDir: this.#cacheDir },
      profile: true,
    });
    try {
      await variant.profile(workload);
      return { identity: variant.identity, workload, stages: await variant.profile(workload) };
    } finally {
      await variant.close();
      this.#progress('profiling', 1, 1, 'steps');
    }
  }

  /** The same for all, so that they are comparable. */
  #chooseMemory({ config }: Checkpoint, { quant }: Formats, variants: number): WeightsMemory {
    const { bytes, elements } = blockOf(quant);
    const needed = (variants * parameterCount(config) * bytes) / elements;
    if (needed <= availableMemory() / 2) return 'own';
    this.#notice(`weights are mapped: ${variants} copies do not fit the memory; fewer --schedules or --threads would`);
    return 'mapped';
  }

  async #check(
    variants: readonly Variant[],
    peer: Peer | undefined,
    config: ModelConfig,
    formats: Formats,
    { limits, depth }: Plan,
  ): Promise<Correctness> {
    const prompt = fillerTokens(depth, config.vocab);
    const tokens = Math.min(comparedTokens, limits.context - depth);
    const claims: Claim[] = [];
    for (const variant of variants) {
      claims.push({ identity: variant.identity, transcript: await variant.transcribe(prompt, tokens) });
      if (this.#options.signal?.aborted === true) throw new AbortedError('the benchmark was stopped');
    }
    requireEqual(claims);
    const [variant, claim] = [variants[0], claims[0]];
    if (peer === undefined || variant === undefined || claim === undefined) {
      return { variants: variants.length, tokens, peer: null };
    }
    const agreement = await compareWithPeer(variant, peer, prompt, claim.transcript, formats);
    return { variants: variants.length, tokens, peer: agreement };
  }

  /** Every variant against the cpu backend, which adds up in float32. */
  async #gates(
    variants: readonly Variant[],
    { checkpoint }: Subject,
    formats: Formats,
    { limits }: Plan,
  ): Promise<GateResult[]> {
    const { signal } = this.#options;
    const text = fillerTokens(Math.min(gateTokens, limits.context), checkpoint.config.vocab);
    const judge = await Variant.prepare(checkpoint, {
      ...{ backend: await chooseBackend('cpu', this.#notice), schedule: 'looped', formats, limits },
      ...{ threads: physicalCores(), cacheDir: this.#cacheDir },
      onPack: (done, total) => this.#progress('packing weights for the gate', done, total, 'bytes'),
      ...(signal === undefined ? {} : { signal }),
    });
    try {
      const expected = await logitsBehind(judge, text);
      const results: GateResult[] = [];
      for (const variant of variants) {
        if (signal?.aborted === true) throw new AbortedError('the benchmark was stopped');
        results.push({ identity: variant.identity, ...gateOf(await logitsBehind(variant, text), expected) });
      }
      return results;
    } finally {
      await judge.close();
    }
  }

  /** Over all cores, whatever is measured: that is what the machine has. A machine without a compiler has no bandwidth to compare with; everything else goes on. */
  async #openMeter(backend: Backend, threads: readonly number[]): Promise<BandwidthMeter | undefined> {
    try {
      const cacheDir = this.#cacheDir;
      const meter =
        (await backend.openBandwidthMeter?.(cacheDir)) ??
        (await openBandwidthMeter({ threads: Math.max(...threads, physicalCores()), cacheDir }));
      this.#cleanup.push(() => meter.close());
      return meter;
    } catch (error) {
      if (!(error instanceof ToolchainError)) throw error;
      this.#notice(messageOf(error));
      return undefined;
    }
  }
}

/** While one side is timed, the other one is watched. */
function otherOf(watches: { ours: IdleWatch; peer: IdleWatch }, { engine }: Identity): IdleWatch {
  return engine === 'kloop' ? watches.peer : watches.ours;
}

function bandwidthOf(meter: BandwidthMeter | undefined, { bandwidth }: Measurements): Bandwidth | null {
  return meter === undefined ? null : { threads: meter.threads, bufferBytes: meter.bytes, measured: bandwidth };
}
