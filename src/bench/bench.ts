/**
 * One benchmark: the model under several schedules and numbers of threads, and other engines on the same weights beside it.
 * First all of them must agree on what comes out, then they are timed in turn.
 */
import type { Backend, BandwidthMeter, MemoryNeed, StageTime, WeightsMemory } from '../backends/backend.js';
import { openBandwidthMeter } from '../backends/cpu/bandwidth.js';
import { physicalCores } from '../backends/cpu/processors.js';
import { defaultCacheDir } from '../backends/cache-dir.js';
import { chooseBackend } from '../backends/registry.js';
import { formatsByTensor, type Checkpoint } from '../checkpoint/checkpoint.js';
import { blockOf } from '../ir/formats.js';
import { schedules as allSchedules, type DType, type Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { parameterCount } from '../models/tensors.js';
import { chooseFormats, compressed, type Formats } from '../runtime/formats.js';
import { AbortedError, messageOf, ToolchainError, UsageError } from '../util/errors.js';
import { defined } from '../util/assert.js';
import { availableMemory } from '../util/memory.js';
import { formatBytes } from '../util/units.js';
import { readHostMachine } from './calibrate/host-file.js';
import { checkAgreement, checkGates, type Correctness } from './checks.js';
import { fitContexts } from './fit-contexts.js';
import type { GateResult } from './gate.js';
import { IdleWatches } from './idle.js';
import { describeMachine, type Machine } from './machine.js';
import type { Peer, PeerInfo } from './peer.js';
import { peerVariants } from './peer-variant.js';
import { openPeers, peerBytes, requirePeers } from './peers.js';
import { predictorFor, type Predict } from './predict.js';
import { duelsOf, resultsOf, type Duel, type Result } from './results.js';
import { measureRounds, type Measurements } from './rounds.js';
import { planRun, threadCounts, type Plan, type Sizes } from './settings.js';
import { prepareVariant, stopIfAsked, withVariant, type OnProgress, type Setup, type Choice } from './setup.js';
import { openSubject, type Subject } from './subject.js';
import { compilerOf, type Variant } from './variant.js';
import { gpuDepth, shortDepth, type Engine, type Identity, type PeerName, type Workload } from './workload.js';

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
  /** Measure also with bf16 weights as they are, where they are read in fewer bytes (cpu). */
  readonly uncompressed?: boolean;
  /** Measure `operator` also with a launch for each kernel call, where they are one graph (cuda). */
  readonly singleLaunches?: boolean;
  /** Default: one per core; with peers, the powers of two below that as well. */
  readonly threads?: readonly number[];
  readonly rounds: number;
  /** Tell the time of each stage of decoding, of one more variant that counts it. */
  readonly profile?: boolean;
  /** Engines to measure beside ours. */
  readonly peers?: readonly PeerName[];
  readonly cacheDir?: string;
  /** Hears of long work. */
  readonly onProgress?: OnProgress;
  readonly onNotice?: (line: string) => void;
  readonly signal?: AbortSignal;
}

export interface BenchReport {
  readonly machine: Machine;
  readonly config: ModelConfig;
  readonly synthetic: boolean;
  readonly backend: string;
  readonly quant: DType;
  /** Weights of bf16 are kept in bf16z. */
  readonly compressed: boolean;
  readonly kv: DType;
  readonly plan: Plan;
  readonly rounds: number;
  readonly correctness: Correctness;
  /** Of every variant and every peer on a GPU. */
  readonly gates: readonly GateResult[];
  readonly bandwidth: Bandwidth | null;
  readonly peers: readonly PeerInfo[];
  /** Cores that each engine used while another was timed; null where the system does not tell. Absent without peers. */
  readonly idle: ReadonlyMap<Engine, number | null> | null;
  readonly results: readonly Result[];
  readonly duels: readonly Duel[];
  /** Of every test; empty where none was asked for. */
  readonly profiles: readonly Profile[];
}

export interface Profile {
  readonly identity: Identity;
  readonly workload: Workload;
  readonly stages: readonly StageTime[];
}

export interface Bandwidth {
  readonly threads: number;
  readonly bufferBytes: number;
  /** Bytes per second, before the first round, after each, and around long runs. */
  readonly measured: readonly number[];
  /** The same of reading the weights alone, around long runs of those that no cache holds. */
  readonly ofWeights: readonly number[];
}

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

type Chosen = Pick<Setup, 'backend' | 'formats' | 'plainFormats' | 'threads'>;

/** What is measured, and the variants that measure it; compiled where that was necessary to know what they need. */
interface Planned {
  readonly plan: Plan;
  readonly choices: readonly Choice[];
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
    const { rounds, kv, signal, peers: peerNames = [], profile = false } = this.#options;
    const backend = await this.#chooseBackend();
    // Before anything is written.
    requirePeers(peerNames, backend);
    if (profile && backend.name !== 'cpu') {
      throw new UsageError('only the cpu backend has a profile', { hint: 'leave out --profile' });
    }
    const threads = this.#threads(backend);
    const subject = await this.#openSubject();
    const { checkpoint } = subject;
    const plainFormats = chooseFormats(checkpoint, backend, this.#options, this.#notice);
    const formats = await compressed(plainFormats, checkpoint, backend, {
      cacheDir: this.#cacheDir,
      onProgress: (done, total) => this.#progress('reading weights', done, total, 'bytes'),
      ...(signal === undefined ? {} : { signal }),
    });
    const { plan, choices } = this.#plan(checkpoint, { backend, formats, plainFormats, threads });
    const setup: Setup = {
      ...{ checkpoint, backend, formats, plainFormats, plan, threads, kv, cacheDir: this.#cacheDir },
      ...{ onProgress: this.#progress, onNotice: this.#notice, signal },
    };
    const peers = await this.#openPeers(peerNames, setup);
    const variants = await this.#prepare(setup, choices);
    const correctness = await checkAgreement(variants, peers, setup);
    const gates = backend.name === 'cuda' ? await checkGates(variants, peers, setup) : [];
    const meter = await this.#openMeter(backend, threads);
    const watches = peers.length === 0 ? undefined : new IdleWatches(peers);
    const measured = await measureRounds([...variants, ...peerVariants(peers, setup)], plan.workloads, {
      rounds,
      ...(meter === undefined ? {} : { meter }),
      ...(watches === undefined ? {} : { watch: (identity, run) => watches.during(identity.engine, run) }),
      onProgress: (done, total) => this.#progress('measuring', done, total, 'steps'),
      ...(signal === undefined ? {} : { signal }),
    });
    const bandwidth = bandwidthOf(meter, measured);
    const results = this.#predicted(setup, resultsOf(measured.series));
    return {
      machine: await describeMachine(),
      config: checkpoint.config,
      synthetic: subject.synthetic,
      backend: backend.name,
      quant: formats.quant,
      compressed: formats !== plainFormats,
      kv: formats.kv,
      plan,
      rounds,
      correctness,
      gates,
      bandwidth,
      peers: peers.map(({ info }) => info),
      idle: watches?.cores ?? null,
      results,
      duels: duelsOf(results),
      profiles: profile ? await this.#profile(setup) : [],
    };
  }

  /** With what the simulator says, where this machine has been measured for it. */
  #predicted({ checkpoint, backend, plan, formats, plainFormats }: Setup, results: readonly Result[]): Result[] {
    const host = backend.name === 'cpu' ? readHostMachine(this.#cacheDir) : undefined;
    if (host === undefined) return [...results];
    const { config, weights } = checkpoint;
    const predictorOf = ({ quant, formatOf }: Formats): Predict => {
      const byTensor = formatsByTensor(weights, formatOf);
      return predictorFor(
        { config, quant, ...(byTensor === undefined ? {} : { formats: byTensor }) },
        host,
        plan.limits.rows,
      );
    };
    const [predict, predictPlain] = [predictorOf(formats), predictorOf(plainFormats)];
    return results.map((result) => {
      const { identity } = result;
      const plain = identity.engine === 'kloop' && identity.mode === 'uncompressed';
      const predicted = (plain ? predictPlain : predict)(result);
      return predicted === undefined ? result : { ...result, predicted };
    });
  }

  readonly #progress: OnProgress = (...progress) => this.#options.onProgress?.(...progress);
  readonly #notice = (line: string): void => this.#options.onNotice?.(line);

  #chooseBackend(): Promise<Backend> | Backend {
    const { backend = 'auto' } = this.#options;
    return typeof backend === 'string' ? chooseBackend(backend, this.#notice) : backend;
  }

  /** What is measured, and of what: where a device takes all memory at once, as much as it holds. */
  #plan(checkpoint: Checkpoint, setup: Chosen): Planned {
    const { config } = checkpoint;
    const { backend } = setup;
    const { context, contexts = [], peers = [] } = this.#options;
    const depth = backend.name === 'cuda' ? gpuDepth : shortDepth;
    const planOf = (kept: readonly number[]): Plan => planRun(config, { ...this.#options, contexts: kept }, depth);
    let choices = this.#choices(setup);
    const { memoryFor } = backend;
    const needOf = (tried: Plan): MemoryNeed => {
      choices = compileChoices(checkpoint, { ...setup, limits: tried.limits }, this.#choices(setup));
      const needs = choices.map(({ plan }) => memoryFor!(defined(plan, 'plan of a variant')));
      // Peers on a device are there at the same time.
      const beside = peerBytes(peers, checkpoint, setup.formats.quant, tried.limits.context);
      return {
        needed: needs.reduce((sum, { needed }) => sum + needed, beside),
        free: Math.min(...needs.map(({ free }) => free)),
      };
    };
    const plan = memoryFor === undefined ? planOf(contexts) : fitContexts(contexts, planOf, needOf);
    const positions = Math.min(config.context, context ?? config.context);
    for (const { depth: at, need } of plan.skipped) {
      const why =
        need === undefined
          ? `with the tokens after it, it is more than the ${positions} positions`
          : `${formatBytes(need.needed)} of the device's memory are needed, and ${formatBytes(need.free)} are free`;
      this.#notice(`context ${at} is left out: ${why}`);
    }
    return { plan, choices };
  }

  #threads({ name, capabilities }: Backend): readonly number[] {
    const { maxWorkers, defaultWorkers } = capabilities;
    const { threads, peers = [] } = this.#options;
    if (threads === undefined) {
      return peers.length === 0 || name === 'cuda' ? [defaultWorkers] : threadCounts(defaultWorkers);
    }
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

  async #openPeers(names: readonly PeerName[], setup: Setup): Promise<Peer[]> {
    const { checkpoint, backend, formats, plan } = setup;
    const opened: Peer[] = [];
    this.#progress('loading peers', 0, names.length, 'steps');
    const options = { ...this.#subjectOptions(), backend, weights: formats.quant, context: plan.limits.context };
    await openPeers(names, checkpoint, options, (peer) => {
      opened.push(peer);
      this.#cleanup.push(() => peer.close());
    });
    return opened;
  }

  async #prepare(setup: Setup, choices: readonly Choice[]): Promise<Variant[]> {
    const { signal } = setup;
    const total = choices.length;
    const weightsMemory = this.#options.weightsMemory ?? this.#chooseMemory(setup, total);
    const variants: Variant[] = [];
    for (const choice of choices) {
      this.#progress('compiling and loading', variants.length, total, 'steps');
      const variant = await prepareVariant(setup, { ...choice, weightsMemory });
      this.#cleanup.push(() => variant.close());
      signal?.addEventListener('abort', () => variant.abort(), { once: true });
      variants.push(variant);
      stopIfAsked(setup);
    }
    return variants;
  }

  /** What is measured of ours, in the order in which it is shown. */
  #choices({ threads, backend, formats, plainFormats }: Chosen): Choice[] {
    const { schedules = allSchedules, singleLaunches = false, uncompressed = false } = this.#options;
    if (singleLaunches && (backend.name !== 'cuda' || !schedules.includes('operator'))) {
      throw new UsageError('only the operator schedule of the cuda backend has single launches to compare with', {
        hint: 'leave out --single-launches',
      });
    }
    if (uncompressed && formats === plainFormats) {
      throw new UsageError('no weights of this model are read in fewer bytes than they have', {
        hint: 'leave out --uncompressed',
      });
    }
    return threads.flatMap((count) =>
      schedules.flatMap((schedule): Choice[] => {
        const choice = { schedule, threads: count };
        if (uncompressed) return [choice, { ...choice, formats: plainFormats, uncompressed }];
        return singleLaunches && schedule === 'operator' ? [{ ...choice, launches: 'single' }, choice] : [choice];
      }),
    );
  }

  /** The last of the schedules with the most threads: what is reported first. */
  async #profile(setup: Setup): Promise<Profile[]> {
    const { plan, threads } = setup;
    const schedule = (this.#options.schedules ?? allSchedules).at(-1) ?? 'response';
    const { workloads } = plan;
    const choice = { schedule, threads: Math.max(...threads), profile: true };
    return withVariant(setup, choice, async (variant) => {
      const profiles: Profile[] = [];
      for (const workload of workloads) {
        this.#progress('profiling', profiles.length, workloads.length, 'steps');
        await variant.profile(workload);
        profiles.push({ identity: variant.identity, workload, stages: await variant.profile(workload) });
      }
      this.#progress('profiling', workloads.length, workloads.length, 'steps');
      return profiles;
    });
  }

  /** The same for all, so that they are comparable. */
  #chooseMemory({ checkpoint, formats }: Setup, variants: number): WeightsMemory {
    const { bytes, elements } = blockOf(formats.quant);
    const needed = (variants * parameterCount(checkpoint.config) * bytes) / elements;
    if (needed <= availableMemory() / 2) return 'own';
    this.#notice(`weights are mapped: ${variants} copies do not fit the memory; fewer --schedules or --threads would`);
    return 'mapped';
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

/** Compiles what schedules have in common once. */
function compileChoices(
  checkpoint: Checkpoint,
  { backend, formats, limits }: Pick<Setup, 'backend' | 'formats'> & Pick<Plan, 'limits'>,
  choices: readonly Choice[],
): Choice[] {
  const compilers = new Map<number, ReturnType<typeof compilerOf>>();
  return choices.map((choice) => {
    const { threads, schedule } = choice;
    const compile = compilers.get(threads) ?? compilerOf(checkpoint, { backend, formats, limits, threads });
    compilers.set(threads, compile);
    return { ...choice, plan: compile(schedule) };
  });
}

function bandwidthOf(meter: BandwidthMeter | undefined, measured: Measurements): Bandwidth | null {
  if (meter === undefined) return null;
  const { bandwidth, weightsBandwidth } = measured;
  return { threads: meter.threads, bufferBytes: meter.bytes, measured: bandwidth, ofWeights: weightsBandwidth };
}
