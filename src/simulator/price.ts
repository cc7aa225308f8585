/**
 * From a model to its workload on a machine. A model that kloop runs is compiled as the machine wants it, and its program
 * is priced; a model that kloop only prices has its costs in workloads/.
 */
import type { ModelConfig } from '../models/model-config.js';
import { findPreset, presets } from '../models/presets.js';
import { compileModel } from '../passes/pipeline.js';
import { UsageError } from '../util/errors.js';
import { lowerProgram } from './lower-program.js';
import type { Machine } from './machine.js';
import { costModelWorkload } from './workloads/cost-model.js';
import { costModelShapes, findCostModel } from './workloads/shapes.js';
import type { Point, Workload } from './workload.js';

/** Something that can be priced. */
export interface PricedModel {
  readonly name: string;
  /** @throws UsageError or UnsupportedModelError where the point makes no sense for the model */
  workload(machine: Machine, point: Point): Workload;
}

/** What to price, as plain data: a name, or the configuration of a checkpoint. */
export type ModelSpec =
  { readonly kind: 'name'; readonly name: string } | { readonly kind: 'config'; readonly config: ModelConfig };

/** @throws UsageError for a name that is neither a preset nor a model that is only priced */
export function priceModel(spec: ModelSpec): PricedModel {
  return spec.kind === 'config' ? new PricedProgram(spec.config) : findPricedModel(spec.name);
}

/** True where `name` is a preset or a model that is only priced. */
export function isPricedName(name: string): boolean {
  return findPreset(name) !== undefined || findCostModel(name) !== undefined;
}

/** A preset, or a model that is only priced. @throws UsageError for another name */
export function findPricedModel(name: string): PricedModel {
  const preset = findPreset(name);
  if (preset !== undefined) return new PricedProgram(preset.config);
  const shape = findCostModel(name);
  if (shape !== undefined) {
    return { name: shape.name, workload: (machine, point) => costModelWorkload(shape, machine, point) };
  }
  const names = [...presets, ...costModelShapes].map((known) => known.name);
  throw new UsageError(`there is no preset "${name}"`, {
    hint: `use a model directory, or one of ${names.join(', ')}`,
  });
}

/** Compiles each program once; batch and context are extents of the same program. */
export class PricedProgram implements PricedModel {
  readonly name: string;
  private readonly programs = new Map<string, ReturnType<typeof compileFor>>();

  constructor(private readonly config: ModelConfig) {
    this.name = config.name;
  }

  workload(machine: Machine, { schedule, sockets, batch, context }: Point): Workload {
    if (context > this.config.context) {
      throw new UsageError(`${this.name} has a context of ${this.config.context} positions, not ${context}`);
    }
    const { tile, capacity } = machine.onChip;
    const key = [schedule, sockets, tile.value, capacity.value, machine.memory.capacity.value].join();
    let program = this.programs.get(key);
    if (program === undefined || program.limits.rows < batch) {
      program = compileFor(this.config, machine, {
        schedule,
        sockets,
        batch: Math.max(64, batch),
        context: this.config.context,
      });
      this.programs.set(key, program);
    }
    return lowerProgram(program, { batch, context });
  }
}

function compileFor(config: ModelConfig, machine: Machine, { schedule, sockets, batch, context }: Point) {
  const { onChip, memory } = machine;
  const { plan } = compileModel(config, {
    schedule,
    sockets,
    limits: { rows: batch, samples: batch, slots: batch, context },
    capabilities: {
      memories: [
        { name: 'on chip', bytes: onChip.capacity.value },
        { name: 'memory', bytes: memory.capacity.value },
      ],
      tileBytes: onChip.tile.value,
      defaultWorkers: 1,
    },
  });
  return plan.response ?? plan.step;
}
