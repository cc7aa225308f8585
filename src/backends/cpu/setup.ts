/** What the worker thread of the cpu backend is told. */
import type { Name } from '../../ir/program.js';
import type { WorkerSetup } from '../messages.js';

export interface CpuSetup extends WorkerSetup {
  readonly libraryPath: string;
  readonly weightsPath: string;
  /** The processor that each worker stays on; null where they move freely. */
  readonly processors: Int32Array | null;
  /** Offset and bytes of every matrix that is copied; none where the file is mapped. */
  readonly spans: Float64Array;
  /** The arena is in large pages. */
  readonly largePages: boolean;
  /** Offsets into the arena of all values that are not weights. */
  readonly offsets: ReadonlyMap<Name, number>;
  /** Bytes of every state. */
  readonly states: readonly (readonly [Name, number])[];
}
