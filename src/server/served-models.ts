/**
 * The models of a server by name. One is loaded when it is first asked for, if there is memory for it, and unloaded when
 * nobody has asked for it for a while, or when another one needs the room.
 */
import type { Logger } from 'pino';
import { Model } from '../runtime/model.js';
import { messageOf, UsageError } from '../util/errors.js';
import { availableMemory } from '../util/memory.js';
import { formatBytes } from '../util/units.js';
import { ApiError } from './api-error.js';
import { ServedModel } from './served-model.js';
import type { ServerLimits } from './settings.js';

/** A model that is not loaded yet. */
export interface ModelSource {
  readonly name: string;
  /** Positions of a sequence. */
  readonly context: number;
  /** Bytes that it takes when it is loaded. */
  readonly bytes: number;
  load(signal: AbortSignal): Promise<Model>;
}

export interface ServedModelsOptions {
  readonly limits: ServerLimits;
  readonly log: Logger;
  /** Milliseconds without a request after which a model that can be loaded again is unloaded; 0: never. */
  readonly idleMs: number;
  /** Bytes that this process may still take. */
  readonly freeBytes?: () => number;
}

/** A model in use: it stays until it is released. */
export interface Lease {
  readonly served: ServedModel;
  /** May be called again. */
  readonly release: () => void;
}

/** What is known of a model whether it is loaded or not. */
export interface ModelEntry {
  readonly id: string;
  readonly context: number;
  /** Unix time at which the server began to offer it. */
  readonly created: number;
  readonly loaded: boolean;
}

/** Seconds after which a model for which there was no memory may be asked for again. */
const retryAfter = 10;

class Entry implements ModelEntry {
  readonly created = Math.floor(Date.now() / 1000);
  served: ServedModel | undefined;
  loading: Promise<ServedModel> | undefined;
  users = 0;
  lastUse = 0;
  timer: NodeJS.Timeout | undefined;

  constructor(
    readonly id: string,
    readonly context: number,
    /** Absent for a model that was given as it is, and stays. */
    readonly source: ModelSource | undefined,
  ) {}

  get loaded(): boolean {
    return this.served !== undefined;
  }

  get isIdle(): boolean {
    return this.source !== undefined && this.served !== undefined && this.users === 0;
  }
}

export class ServedModels {
  readonly #entries: ReadonlyMap<string, Entry>;
  readonly #options: ServedModelsOptions;
  readonly #freeBytes: () => number;
  readonly #stop = new AbortController();
  /** Loads and unloads one at a time, so that each finds the memory that the one before has left. */
  #queue: Promise<unknown> = Promise.resolve();

  /** Throws UsageError where two models have the same name. */
  constructor(models: readonly (Model | ModelSource)[], options: ServedModelsOptions) {
    const entries = models.map((model) => {
      if (!(model instanceof Model)) return new Entry(model.name, model.context, model);
      const entry = new Entry(model.name, model.limits.context, undefined);
      entry.served = new ServedModel(model, options.limits);
      return entry;
    });
    this.#entries = new Map(entries.map((entry) => [entry.id, entry]));
    if (this.#entries.size < entries.length) {
      const twice = entries.find(({ id }, i) => entries.findIndex((other) => other.id === id) !== i)?.id ?? '';
      throw new UsageError(`two models are called ${JSON.stringify(twice)}`, {
        hint: 'leave one out, or rename its directory or file: the last part of its path is its name',
      });
    }
    this.#options = options;
    this.#freeBytes = options.freeBytes ?? availableMemory;
  }

  get all(): readonly ModelEntry[] {
    return [...this.#entries.values()];
  }

  get loaded(): readonly ServedModel[] {
    return [...this.#entries.values()].flatMap(({ served }) => served ?? []);
  }

  /** What is known of a model; without a name, of the only one. Throws ApiError 404. */
  find(id: string | null | undefined): ModelEntry {
    return this.#find(id);
  }

  /**
   * Loads it where it is not. Throws ApiError: 404 for a name that is not there, 503 where it cannot be loaded; and the
   * reason of `signal` as soon as that aborts, while loading goes on for others.
   */
  async use(id: string | null | undefined, signal?: AbortSignal): Promise<Lease> {
    const entry = this.#find(id);
    entry.users++;
    clearTimeout(entry.timer);
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      this.#release(entry);
    };
    try {
      return { served: entry.served ?? (await unlessAborted(this.#load(entry), signal)), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Uses a model for as long as `work` takes. Throws what `use` throws. */
  async with<T>(id: string | null | undefined, work: (served: ServedModel) => T | Promise<T>): Promise<T> {
    const { served, release } = await this.use(id);
    try {
      return await work(served);
    } finally {
      release();
    }
  }

  /** Ends loading, and unloads all. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#queue;
    const entries = [...this.#entries.values()];
    for (const { timer } of entries) clearTimeout(timer);
    await Promise.all(entries.map((entry) => this.#unload(entry)));
  }

  #find(id: string | null | undefined): Entry {
    const [only, ...others] = this.#entries.values();
    const found = id === null || id === undefined ? (others.length === 0 ? only : undefined) : this.#entries.get(id);
    if (found !== undefined) return found;
    const names = [...this.#entries.keys()].join(', ');
    const asked =
      id === null || id === undefined ? 'name one of the models' : `the model ${JSON.stringify(id)} is not served here`;
    throw new ApiError(`${asked}; there is: ${names}`, { status: 404, code: 'model_not_found', param: 'model' });
  }

  #release(entry: Entry): void {
    entry.users--;
    this.#unloadLater(entry);
  }

  /** Where it is idle, and still is after a while. */
  #unloadLater(entry: Entry): void {
    entry.lastUse = performance.now();
    const { idleMs, log } = this.#options;
    if (!entry.isIdle || idleMs === 0) return;
    const unload = async (): Promise<void> => {
      if (!entry.isIdle) return;
      log.info({ model: entry.id, idle_ms: idleMs }, 'unloading');
      await this.#unload(entry);
    };
    entry.timer = setTimeout(() => void this.#enqueue(unload), idleMs).unref();
  }

  /** All who wait for the same model wait for the same loading. */
  #load(entry: Entry): Promise<ServedModel> {
    entry.loading ??= this.#enqueue(() => this.#loadNow(entry)).finally(() => (entry.loading = undefined));
    return entry.loading;
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(work);
    this.#queue = done.catch(() => undefined);
    return done;
  }

  async #loadNow(entry: Entry): Promise<ServedModel> {
    const { source } = entry;
    const { log, limits } = this.#options;
    if (source === undefined || this.#stop.signal.aborted) {
      throw new ApiError('the server is shutting down', { status: 503, code: 'shutting_down', retryAfter: 1 });
    }
    await this.#makeRoom(source);
    log.info({ model: entry.id, bytes: source.bytes }, 'loading');
    try {
      entry.served = new ServedModel(await source.load(this.#stop.signal), limits);
      // Whoever asked for it may have left.
      this.#unloadLater(entry);
      return entry.served;
    } catch (error) {
      // The details are for whoever runs the server: they tell paths.
      log.error({ model: entry.id, reason: messageOf(error) }, 'loading failed');
      const failure = { status: 503, code: 'model_not_loaded', param: 'model', retryAfter } as const;
      throw new ApiError(`the model ${entry.id} could not be loaded; the log says why`, failure, { cause: error });
    }
  }

  /** Unloads models that nobody uses, the one unused for longest first, until there is room. Throws ApiError 503. */
  async #makeRoom({ name, bytes }: ModelSource): Promise<void> {
    const { log } = this.#options;
    const idle = [...this.#entries.values()].filter(({ isIdle }) => isIdle).sort((a, b) => a.lastUse - b.lastUse);
    for (const entry of idle) {
      if (bytes <= this.#freeBytes()) return;
      // Somebody may have asked for it meanwhile.
      if (!entry.isIdle) continue;
      log.info({ model: entry.id, needed_by: name }, 'unloading');
      await this.#unload(entry);
    }
    const free = this.#freeBytes();
    if (bytes <= free) return;
    throw new ApiError(`the model ${name} needs ${formatBytes(bytes)} of memory, and ${formatBytes(free)} are free`, {
      status: 503,
      code: 'out_of_memory',
      param: 'model',
      retryAfter,
    });
  }

  async #unload(entry: Entry): Promise<void> {
    const { served } = entry;
    entry.served = undefined;
    clearTimeout(entry.timer);
    await served?.close();
  }
}

/** The result of `work`, unless `signal` aborts before: then rejects with its reason. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
