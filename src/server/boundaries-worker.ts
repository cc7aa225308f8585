/** A thread that prices a model: a large one takes a second, in which the server has to answer others. */
import { parentPort, workerData } from 'node:worker_threads';
import { boundariesOf, type BoundariesTask } from './boundaries.js';

parentPort?.postMessage(boundariesOf(workerData as BoundariesTask));
