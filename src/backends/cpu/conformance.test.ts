import { runBackendConformance } from '../conformance.js';
import { createCpuBackend } from './index.js';

// Two workers share every kernel, whatever the machine has.
runBackendConformance({ name: 'cpu', make: () => createCpuBackend(), prepare: { threads: 2 } });
