import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { modelConfig, smallLimits, Workspace } from '../../../tests/support/models.js';
import { writeSynthetic } from '../../checkpoint/synth.js';
import { openWeights } from '../../checkpoint/weights.js';
import { compileModel } from '../../passes/pipeline.js';
import { AbortedError } from '../../util/errors.js';
import { referenceBackend } from './index.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());

const config = modelConfig('llama');
const { capabilities } = referenceBackend;
const { plan } = compileModel(config, { schedule: 'looped', limits: smallLimits, capabilities });

it('refuses weights that are not finite before anything is made of them', async () => {
  const directory = workspace.path('broken');
  await writeSynthetic(config, directory);
  const file = join(directory, 'model.safetensors');
  const bytes = readFileSync(file);
  writeFileSync(file, bytes.fill(0xff, bytes.length - 4));
  const weights = openWeights(directory);
  // The last matrix of the file.
  const { name, shape } = weights.describe([...weights.names()].at(-1)!);
  const last = shape.reduce((product, size) => product * size, 1) - 1;
  const message = `${file}: tensor "${name}" is not finite at element ${last}; the checkpoint is broken`;
  await expect(referenceBackend.prepare(plan, weights, {})).rejects.toThrow(message);
  weights.close();
});

it('stops where the caller does', async () => {
  const prepared = referenceBackend.prepare(plan, await workspace.weights(config), { signal: AbortSignal.abort() });
  await expect(prepared).rejects.toThrow(AbortedError);
});
