import { afterAll, beforeAll, expect, it } from 'vitest';
import { modelConfig, smallLimits, Workspace } from '../../tests/support/models.js';
import type { Weights } from '../checkpoint/weights.js';
import type { Program } from '../ir/program.js';
import { isKind } from '../ir/visit.js';
import { checkSchedule } from '../passes/check-schedule.js';
import type { Backend } from './backend.js';
import { firstDifference } from './conformance-difference.js';
import { referenceBackend } from './reference/index.js';

const workspace = new Workspace();
afterAll(() => workspace.remove());
const config = modelConfig('llama');
let weights: Weights;
beforeAll(async () => {
  weights = await workspace.weights(config);
});

/** The reference backend with one operator of the fused layer done wrongly: the second norm has another epsilon. */
const wrong: Backend = {
  ...referenceBackend,
  prepare: ({ step }, given, options) => {
    const kernels = step.kernels.map((kernel) => {
      let norms = 0;
      const statements = kernel.body.statements.map((statement): (typeof kernel.body.statements)[number] => {
        if (statement.kind === 'loop' || !isKind(statement, 'rmsNorm') || ++norms < 2) return statement;
        return { ...statement, attributes: { ...statement.attributes, eps: 0.5 } };
      });
      return { ...kernel, body: { ...kernel.body, statements } };
    });
    const program: Program & { certificate?: unknown } = { ...step, kernels };
    delete program.certificate;
    return referenceBackend.prepare({ step: checkSchedule(program) }, given, options);
  },
};

it('names the first operator that differs between two schedules', async () => {
  const test = { config, weights, limits: smallLimits };
  expect(await firstDifference(wrong, test, ['operator', 'layer'], {})).toBe('ffn_norm of layer 0');
  expect(await firstDifference(referenceBackend, test, ['operator', 'looped'], {})).toBeUndefined();
});
