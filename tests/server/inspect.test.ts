/** What the page asks: prices of the kernel calls of a model. */
import { expect, it } from 'vitest';
import type { MachineTimes } from '../../src/server/boundaries.js';
import { fakeModel, serveModels } from '../support/server.js';

async function bytesPerToken(formats?: ReadonlyMap<string, 'q4_0'>): Promise<number> {
  const served = await serveModels([fakeModel(formats === undefined ? {} : { formats }).model]);
  const { machines } = (await (await served.get('/inspect/fake')).json()) as { machines: MachineTimes[] };
  await served.server.close();
  return machines[0]!.schedules[0]!.bytes_per_token;
}

it('each matrix is priced in the format it is stored in', async () => {
  // A row of 288 values is 1152 bytes in f32 and nine blocks of 18 bytes in q4_0; the matrix has 768 rows.
  const saved =
    (await bytesPerToken()) - (await bytesPerToken(new Map([['model.layers.0.mlp.up_proj.weight', 'q4_0']])));
  expect(saved).toBe(768 * (1152 - 9 * 18));
});
