/** The routes behind the page: what a model is, what its kernels have counted, and what its boundaries cost elsewhere. */
import { Worker } from 'node:worker_threads';
import type { Hono } from 'hono';
import { blockOf } from '../ir/formats.js';
import type { Machine } from '../simulator/machine.js';
import { machines } from '../simulator/machines/index.js';
import type { AppEnv } from './answer.js';
import type { BoundariesTask, MachineTimes } from './boundaries.js';
import type { ServedModel } from './served-model.js';
import type { ServedModels } from './served-models.js';

/** At the same depth below src/ and dist/. */
const workerFile = new URL('../../dist/server/boundaries-worker.js', import.meta.url);

/** Those of the paper. */
const shownMachines = ['sn40l', 'dgx-h100'];
/** Positions that the simulated token attends to, at most. */
const shownContext = 4096;

/** @param host this machine, where `kloop calibrate` has measured it */
export function addInspection(app: Hono<AppEnv>, models: ServedModels, host: Machine | undefined): void {
  const known = new WeakMap<ServedModel, Promise<readonly MachineTimes[]>>();
  const boundaries = (served: ServedModel): Promise<readonly MachineTimes[]> => {
    let times = known.get(served);
    if (times === undefined) {
      times = inThread(taskOf(served, host));
      known.set(served, times);
      // The next request tries again.
      times.catch(() => known.delete(served));
    }
    return times;
  };
  app.get('/inspect/:id', (context) =>
    models.with(context.req.param('id'), async (served) => {
      const { model } = served;
      return context.json({
        model: served.id,
        backend: model.backend,
        quant: model.quant,
        schedule: model.schedule,
        threads: model.threads,
        layers: model.config.layers,
        context: model.limits.context,
        chat: model.hasChatTemplate,
        read_bandwidth: model.backend === 'cpu' ? (host?.memory.bandwidth.value ?? null) : null,
        machines: await boundaries(served),
      });
    }),
  );
  app.get('/inspect/:id/counters', (context) =>
    models.with(context.req.param('id'), ({ model: { counters } }) =>
      context.json({
        kernel_calls: counters.kernelCalls,
        barriers: counters.barriers,
        bytes_read: counters.bytesRead,
        wait_ns: counters.waitNs,
        tokens: counters.tokens,
      }),
    ),
  );
}

function taskOf({ model }: ServedModel, host: Machine | undefined): BoundariesTask {
  const { config, quant, formats, limits } = model;
  const others = machines.filter(({ name }) => shownMachines.includes(name));
  return {
    config,
    // Rows that do not fill the blocks stay as they are, as in the model itself.
    quant: config.hidden % blockOf(quant).elements === 0 ? quant : config.dtype,
    ...(formats === undefined ? {} : { formats }),
    context: Math.min(limits.context, shownContext),
    machines: host === undefined ? others : [host, ...others],
  };
}

function inThread(task: BoundariesTask): Promise<readonly MachineTimes[]> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(workerFile, { workerData: task });
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', (code) => reject(new Error(`pricing the model ended with code ${code}`)));
  });
}
