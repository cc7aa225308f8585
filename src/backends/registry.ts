/** The backends by name. The only place that knows them all. */
import { UsageError } from '../util/errors.js';
import type { Backend } from './backend.js';
import { createCpuBackend } from './cpu/index.js';
import { findCompiler } from './cpu/toolchain.js';
import { createCudaBackend } from './cuda/index.js';
import { referenceBackend } from './reference/index.js';

export const backendNames = ['auto', 'cpu', 'cuda', 'reference'] as const;

/**
 * The backend of this name; `auto` is cpu where there is a C compiler, else reference with a notice.
 * @throws UsageError for an unknown name, ToolchainError for cuda without a driver or a device
 */
export async function chooseBackend(name: string, onNotice: (line: string) => void): Promise<Backend> {
  switch (name) {
    case 'cpu':
      return createCpuBackend();
    case 'cuda':
      return createCudaBackend();
    case 'reference':
      return referenceBackend;
    case 'auto': {
      if ((await findCompiler()) !== undefined) return createCpuBackend();
      onNotice('no C compiler found (cc, gcc or clang): running on the reference backend, which is slow');
      return referenceBackend;
    }
    default:
      throw new UsageError(`unknown backend ${name}`, { hint: `use one of ${backendNames.join(', ')}` });
  }
}
