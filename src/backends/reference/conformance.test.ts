import { runBackendConformance } from '../conformance.js';
import { referenceBackend } from './index.js';

runBackendConformance({ name: 'reference', make: () => referenceBackend, tolerance: 1e-9 });
