/** What all parts of a benchmark share: the model, what runs it, and how to get a variant of it. */
import type { Backend } from '../backends/backend.js';
import type { Checkpoint } from '../checkpoint/checkpoint.js';
import type { DType } from '../ir/program.js';
import { chooseFormats, type Formats } from '../runtime/formats.js';
import { AbortedError } from '../util/errors.js';
import type { Plan } from './settings.js';
import { Variant, type VariantOptions } from './variant.js';

export type OnProgress = (label: string, done: number, total: number, unit: 'bytes' | 'steps') => void;

export interface Setup {
  readonly checkpoint: Checkpoint;
  readonly backend: Backend;
  readonly formats: Formats;
  /** The same before weights are kept in fewer bytes. */
  readonly plainFormats: Formats;
  readonly plan: Plan;
  /** Numbers of threads to try. */
  readonly threads: readonly number[];
  /** Format of the KV cache, where one was asked for. */
  readonly kv?: DType | undefined;
  readonly cacheDir: string;
  readonly onProgress: OnProgress;
  readonly onNotice: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

export type Choice = Pick<VariantOptions, 'schedule' | 'threads'> &
  Partial<
    Pick<
      VariantOptions,
      'backend' | 'formats' | 'uncompressed' | 'launches' | 'plan' | 'profile' | 'weightsMemory' | 'instructionSet'
    >
  >;

/** The caller closes it. Throws what compiling and loading throws. */
export function prepareVariant(setup: Setup, choice: Choice): Promise<Variant> {
  const { checkpoint, backend, formats, plan, cacheDir, signal } = setup;
  return Variant.prepare(checkpoint, {
    ...{ backend, formats, limits: plan.limits, cacheDir, ...choice },
    onPack: (done, total) => setup.onProgress('packing weights', done, total, 'bytes'),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Runs `use` with a variant that is not among those measured. */
export async function withVariant<T>(setup: Setup, choice: Choice, use: (variant: Variant) => Promise<T>): Promise<T> {
  const variant = await prepareVariant(setup, choice);
  try {
    return await use(variant);
  } finally {
    await variant.close();
  }
}

/** Formats of the same model with weights in `quant`; those of the setup where that is what it has. */
export function formatsWith(quant: DType, { checkpoint, backend, formats, kv, onNotice }: Setup): Formats {
  if (quant === formats.quant) return formats;
  return chooseFormats(checkpoint, backend, { quant, ...(kv === undefined ? {} : { kv }) }, onNotice);
}

/** Throws AbortedError after the signal. */
export function stopIfAsked({ signal }: Pick<Setup, 'signal'>): void {
  if (signal?.aborted === true) throw new AbortedError('the benchmark was stopped');
}
