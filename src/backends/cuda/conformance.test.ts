import { afterAll } from 'vitest';
import { hostCompiler, makeFakeDriver } from '../../../tests/support/cuda/fake-driver.js';
import { Workspace } from '../../../tests/support/models.js';
import { runBackendConformance } from '../conformance.js';
import { createCudaBackend } from './index.js';
import { hostTarget } from './target.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());

// Three multiprocessors that are fibers of this process.
runBackendConformance({
  name: 'cuda',
  make: () => {
    const driverPath = makeFakeDriver(workspace.directory);
    return createCudaBackend({ driverPath, compiler: hostCompiler, target: hostTarget });
  },
});
