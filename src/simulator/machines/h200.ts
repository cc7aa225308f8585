/** NVIDIA H200, 1 to 8 GPUs: an H100 with another memory. Everything else is taken over from the H100. */
import type { Machine } from '../machine.js';
import { dgxH100 } from './dgx-h100.js';
import { q, sources } from './sources.js';

export const h200: Machine = {
  ...dgxH100,
  name: 'h200',
  title: 'NVIDIA H200',
  memory: {
    ...dgxH100.memory,
    bandwidth: q(4.8e12, 'B/s', 'printed', sources.h200),
    capacity: q(141e9, 'B', 'printed', sources.h200),
  },
};
