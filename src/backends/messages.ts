/** What an executable and its worker thread say to each other. */
import { KloopError, ToolchainError } from '../util/errors.js';
import type { Counters, ExecutionPlan, Step, StepResult } from './backend.js';

/** Something of the engine that may travel between threads of this process: where it can be told to stop. */
export type EngineAddress = bigint;

/** What every worker is told; backends add what their engines need. */
export interface WorkerSetup {
  readonly plan: ExecutionPlan;
  readonly threads: number;
  /** See Executable. */
  readonly showsTokens: boolean;
  /** One element, on shared memory: not 0 while the running step is to stop. */
  readonly aborted: Int32Array;
}

export type Request =
  | { readonly id: number; readonly kind: 'open' }
  | { readonly id: number; readonly kind: 'run'; readonly step: Step; readonly wantsTokens: boolean }
  | { readonly id: number; readonly kind: 'reset' }
  | { readonly id: number; readonly kind: 'close' };

export interface Reply {
  readonly id: number;
  readonly address?: EngineAddress;
  readonly result?: StepResult;
  readonly counters?: Counters;
  readonly error?: SerializedError;
}

/** A token of the request `id`, which has not ended. */
export interface TokenNotice {
  readonly id: number;
  readonly sample: number;
  readonly token: number;
}

export interface SerializedError {
  readonly message: string;
  readonly stack: string | undefined;
  /** It was meant for the user; anything else is a bug of ours. */
  readonly forUser: boolean;
}

export function serializeError(error: unknown): SerializedError {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { message, stack, forUser: error instanceof KloopError };
}

export function deserializeError({ message, stack, forUser }: SerializedError): Error {
  if (forUser) return new ToolchainError(message);
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}
