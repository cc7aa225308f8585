/** The machine under a measurement: without it a figure says nothing. */
import { availableParallelism, cpus } from 'node:os';
import { chooseInstructionSet } from '../backends/cpu/instruction-set.js';
import { physicalCores } from '../backends/cpu/processors.js';
import { findCompiler } from '../backends/cpu/toolchain.js';
import { totalMemory } from '../util/memory.js';

export interface Machine {
  readonly cpu: string;
  readonly architecture: string;
  /** Physical cores that this process may use, and hardware threads. */
  readonly cores: number;
  readonly processors: number;
  /** That of the generated kernels. */
  readonly instructionSet: string;
  /** First line of `cc --version`; null where there is no compiler. */
  readonly compiler: string | null;
  readonly memoryBytes: number;
  readonly node: string;
}

export async function describeMachine(): Promise<Machine> {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    architecture: process.arch,
    cores: physicalCores(),
    processors: availableParallelism(),
    instructionSet: chooseInstructionSet().name,
    compiler: (await findCompiler())?.version ?? null,
    memoryBytes: totalMemory(),
    node: process.versions.node,
  };
}
