/** What emitting the kernels of one program shares. */
import type { Name, Program } from '../../../ir/program.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import type { Allocator } from '../../memory-map.js';
import type { Layout } from '../target.js';
import type { RingWriter } from './ring-writer.js';

export interface KernelEmission {
  readonly program: Program;
  readonly writer: CodeWriter;
  /** Prints what touches the ring of weights and the counters, with the same writer. */
  readonly ring: RingWriter;
  readonly layout: Layout;
  /** Memory of all blocks. */
  readonly scratch: Allocator;
  /** Makes room for this many bytes of each block's own; what a stage keeps there ends with the stage. */
  readonly needOwn: (bytes: number) => void;
  /** Bytes between the members of the stack that a parameter is given. */
  readonly strideOf: (param: Name) => number;
  /** The number by which a hand-off is known to the watchdog; the text says where it is. */
  readonly numberOf: (place: string) => number;
}
