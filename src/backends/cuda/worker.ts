/** The thread in which an engine of the cuda backend lives. */
import { workerData } from 'node:worker_threads';
import { serveEngine } from '../serve-engine.js';
import { CudaEngine } from './engine.js';
import type { CudaSetup } from './setup.js';

serveEngine(() => new CudaEngine(workerData as CudaSetup));
