/**
 * Whether who is not being measured is idle: a thread that spins on the other side would cost the one that is timed a
 * core. Processor time is read before and after; a side that uses a core throughout counts 1.
 */
import { readdirSync, readFileSync } from 'node:fs';
import type { Peer } from './peer.js';
import type { Engine } from './workload.js';

/** Processor time of all threads of a process so far, in milliseconds; undefined where the system does not tell. */
export function processorMs(pid: number): number | undefined {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    const ns = threads.map((thread) =>
      Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
    );
    return ns.reduce((sum, value) => sum + value, 0) / 1e6;
  } catch {
    // Another system than Linux, or a thread ended while we looked.
    return undefined;
  }
}

/** Adds up how busy a process was while somebody else was timed. */
export class IdleWatch {
  readonly #pid: number;
  #busyMs = 0;
  #elapsedMs = 0;

  constructor(pid: number) {
    this.#pid = pid;
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    const before = processorMs(this.#pid);
    const startMs = performance.now();
    const result = await work();
    const after = processorMs(this.#pid);
    if (before !== undefined && after !== undefined) {
      this.#busyMs += Math.max(0, after - before);
      this.#elapsedMs += performance.now() - startMs;
    }
    return result;
  }

  /** Cores in use on average; null where nothing could be measured. */
  get cores(): number | null {
    return this.#elapsedMs > 0 ? this.#busyMs / this.#elapsedMs : null;
  }
}

/** Of ourselves and of all peers: while one is timed, the others are watched. */
export class IdleWatches {
  readonly #watches: ReadonlyMap<Engine, IdleWatch>;

  constructor(peers: readonly Pick<Peer, 'info' | 'pid'>[]) {
    this.#watches = new Map([
      ['kloop', new IdleWatch(process.pid)],
      ...peers.map(({ info, pid }) => [info.kind.engine, new IdleWatch(pid)] as const),
    ]);
  }

  during<T>(timed: Engine, work: () => Promise<T>): Promise<T> {
    const others = [...this.#watches].filter(([engine]) => engine !== timed);
    return others.reduce(
      (inner, [, watch]) =>
        () =>
          watch.during(inner),
      work,
    )();
  }

  get cores(): ReadonlyMap<Engine, number | null> {
    return new Map([...this.#watches].map(([engine, { cores }]) => [engine, cores]));
  }
}
