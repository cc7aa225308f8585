/**
 * Many requests on the slots of one model: a queue, and for each prompt the free session that holds most of it already
 * (prefix reuse); where none holds any, the one that was used longest ago is overwritten. Requests take turns, so that one
 * that wants many texts does not keep the others waiting.
 */
import { AbortedError, OverloadedError, UsageError } from '../util/errors.js';
import { Generation } from './generation.js';
import type { Model } from './model.js';
import type { GenerateOptions, Session } from './session.js';

export interface PoolOptions {
  /** Generations that may wait for a slot. Default 256. */
  readonly queueLimit?: number;
}

/** One text of a request. */
export interface PoolRequest {
  readonly prompt: readonly number[];
  readonly options?: GenerateOptions;
  /** Called when it has a slot, and its tokens begin to be computed. */
  readonly onStart?: () => void;
}

interface Waiting {
  readonly prompt: readonly number[];
  readonly start: (session: Session) => void;
  readonly reject: (error: Error) => void;
}

/** Texts of one request, in order; never empty while it is in the queue. */
type Turn = Waiting[];

/** Shorter matches are chance or the token that begins every text; an unused slot is better then. */
const leastMatch = 8;

export class SessionPool {
  /** Free sessions, the one used longest ago first. */
  readonly #free: Session[];
  readonly #slots: number;
  readonly #queueLimit: number;
  #turns: Turn[] = [];
  #waiting = 0;
  #closed = false;

  /** Takes all free slots of the model. */
  constructor(model: Model, { queueLimit = 256 }: PoolOptions = {}) {
    this.#free = Array.from({ length: model.limits.slots }, () => model.session());
    this.#slots = this.#free.length;
    this.#queueLimit = queueLimit;
  }

  get slots(): number {
    return this.#slots;
  }

  /** Generations that have a slot. */
  get running(): number {
    return this.#slots - this.#free.length;
  }

  /** Generations that wait for one. */
  get waiting(): number {
    return this.#waiting;
  }

  /**
   * Starts or queues the texts of one request, all or none of them. Throws OverloadedError where the queue has no room,
   * UsageError where it never will. A generation that is aborted while it waits rejects with AbortedError.
   */
  generate(requests: readonly PoolRequest[]): readonly Generation[] {
    if (this.#closed) throw new AbortedError('the model is closed');
    const most = this.#queueLimit + this.#slots;
    if (requests.length > most) {
      throw new UsageError(`the request is for ${requests.length} texts, and at most ${most} can run or wait`, {
        hint: 'ask for fewer at a time, or have more slots or a longer queue',
      });
    }
    if (this.#waiting + requests.length > this.#queueLimit + this.#free.length) {
      throw new OverloadedError(`${this.#waiting} requests are waiting, at most ${this.#queueLimit} may`, {
        hint: 'try again later',
      });
    }
    const turn: Turn = [];
    const generations = requests.map((request) => this.#generation(turn, request));
    if (turn.length > 0) this.#turns.push(turn);
    this.#dispatch();
    return generations;
  }

  /** Rejects what waits, and gives the slots back to the model: that of what runs when it has ended. */
  close(): void {
    this.#closed = true;
    for (const session of this.#free) void session.close();
    const waiting = this.#turns.flat();
    this.#turns = [];
    this.#waiting = 0;
    for (const { reject } of waiting) reject(new AbortedError('the model is closed'));
  }

  #generation(turn: Turn, { prompt, options = {}, onStart }: PoolRequest): Generation {
    return new Generation(async (emit, signal) => {
      const session = await this.#wait(turn, prompt, signal);
      try {
        onStart?.();
        const generation = session.generate(prompt, { ...options, signal });
        for await (const piece of generation) emit(piece);
        return await generation.result;
      } finally {
        this.#free.push(session);
        if (this.#closed) void session.close();
        else this.#dispatch();
      }
    }, options.signal);
  }

  /** Enters the queue, before it returns. */
  #wait(turn: Turn, prompt: readonly number[], signal: AbortSignal): Promise<Session> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#remove(turn, waiting);
        reject(new AbortedError('stopped while it waited for a slot'));
      };
      const settle = (): void => signal.removeEventListener('abort', onAbort);
      const waiting: Waiting = {
        prompt,
        start: (session) => {
          settle();
          resolve(session);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      };
      turn.push(waiting);
      this.#waiting++;
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  #remove(turn: Turn, waiting: Waiting): void {
    turn.splice(turn.indexOf(waiting), 1);
    this.#waiting--;
    if (turn.length === 0) this.#turns = this.#turns.filter((other) => other !== turn);
  }

  #dispatch(): void {
    while (this.#free.length > 0) {
      const turn = this.#turns.shift();
      if (turn === undefined) return;
      const waiting = turn.shift();
      // The rest of the request gets in line again.
      if (turn.length > 0) this.#turns.push(turn);
      if (waiting === undefined) continue;
      this.#waiting--;
      waiting.start(this.#takeFor(waiting.prompt));
    }
  }

  /** At least one session is free. */
  #takeFor(prompt: readonly number[]): Session {
    let best = 0;
    let longest = leastMatch - 1;
    for (const [i, session] of this.#free.entries()) {
      const shared = session.sharedPrefix(prompt);
      if (shared <= longest) continue;
      best = i;
      longest = shared;
    }
    return this.#free.splice(best, 1)[0]!;
  }
}
