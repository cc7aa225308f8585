import { describe, expect, it } from 'vitest';
import { modelConfig, modelNames, smallLimits } from '../../tests/support/models.js';
import { schedules, type Program, type Schedule } from '../ir/program.js';
import { verify } from '../ir/verify.js';
import { buildProgram } from '../models/build.js';
import type { ModelConfig } from '../models/model-config.js';
import { presets } from '../models/presets.js';
import { assertChecked, checkSchedule } from './check-schedule.js';
import type { Pass, PassContext } from './pass.js';
import { compileModel, finishingPasses, shapingPasses } from './pipeline.js';

const context: PassContext = { memories: [{ name: 'ram', bytes: 1 << 30 }], tileBytes: 4096, workers: 2 };
const limits = smallLimits;

/** All passes of a schedule, with the rules checked before and after each. */
function verified(config: ModelConfig, schedule: Schedule, responseTokens: number): Program {
  const reached = schedules.slice(0, schedules.indexOf(schedule) + 1);
  const passes: Pass[] = [...reached.flatMap((step) => shapingPasses(step, { responseTokens })), ...finishingPasses];
  const built = buildProgram(config, { limits });
  verify(built);
  return passes.reduce((program, pass) => {
    const result = pass(program, context).program;
    verify(result);
    return result;
  }, built);
}

const models: readonly ModelConfig[] = [
  ...presets.map(({ config }) => config),
  ...modelNames.map((name) => modelConfig(name)),
];

describe.each(models.map((config) => [config.name, config] as const))('%s', (_, config) => {
  it.each(schedules)('keeps the rules after every pass, and is certified: %s', (schedule) => {
    const program = verified(config, schedule, 8);
    const { certificate, ...checked } = checkSchedule(program);
    expect(checked).toEqual(program);
    // Kernels of one stage have nothing to prove.
    expect(certificate.orderedPairs > 0).toBe(schedule !== 'operator');
    const capabilities = { ...context, defaultWorkers: 2 };
    const { plan } = compileModel(config, { schedule, limits, capabilities, responseTokens: 8 });
    assertChecked(plan.step);
    expect(plan.response ?? plan.step).toEqual({ ...program, certificate });
  });
});

describe('calls per token of llama-3.1-8b', () => {
  const { config } = presets.find(({ name }) => name === 'llama-3.1-8b')!;
  it.each([
    ['operator', 323],
    ['layer', 35],
    ['looped', 4],
    ['response', 1],
  ] as const)('%s: %i', (schedule, calls) => {
    expect(verified(config, schedule, 8).calls).toHaveLength(calls);
  });
});
