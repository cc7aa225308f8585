/**
 * From a model to its workload on a machine. A model that kloop runs is compiled as the machine wants it, and its program
 * is priced; a model that kloop only prices has its costs in workloads/.
 */
import type { DType } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { findPreset, presets } from '../models/presets.js';
import { modelCompiler } from '../passes/pipeline.js';
import { assert } from '../util/assert.js';
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

/** What to price, as plain data: a name, or the configuration of a checkpoint with the formats of its matrices. */
export type ModelSpec =
  | { readonly kind: 'name'; readonly name: string; readonly quant?: DType }
  | ({ readonly kind: 'config'; readonly config: ModelConfig } & WeightFormats);

export interface WeightFormats {
  /** Of all matrices; default: the precision of the configuration. */
  readonly quant?: DType;
  /** Of single matrices, by the checkpoint's names, where they differ. */
  readonly formats?: ReadonlyMap<string, DType>;
  /** Whether a machine that was measured with bf16z has bf16 matrices in it, as kloop runs them there. Default: yes. */
  readonly compress?: boolean;
}

/** @throws UsageError for a name that is neither a preset nor a model that is only priced */
export function priceModel(spec: ModelSpec): PricedModel {
  return spec.kind === 'config' ? new PricedProgram(spec.config, spec) : findPricedModel(spec.name, spec.quant);
}

/** True where `name` is a preset or a model that is only priced. */
export function isPricedName(name: string): boolean {
  return findPreset(name) !== undefined || findCostModel(name) !== undefined;
}

/**
 * A preset, or a model that is only priced.
 * @throws UsageError for another name, and for `quant` of a model that has no program
 */
export function findPricedModel(name: string, quant?: DType): PricedModel {
  const preset = findPreset(name);
  if (preset !== undefined) return new PricedProgram(preset.config, quant === undefined ? {} : { quant });
  const shape = findCostModel(name);
  if (shape !== undefined) {
    if (quant !== undefined) {
      throw new UsageError(`${name} is priced in its published precision only, not in ${quant}`, {
        hint: 'leave out --quant',
      });
    }
    return {
      name: shape.name,
      workload: (machine, point) => {
        assert(point.promptTokens === undefined, 'prompts of models that have a program');
        return costModelWorkload(shape, machine, point);
      },
    };
  }
  const names = [...presets, ...costModelShapes].map((known) => known.name);
  throw new UsageError(`there is no preset "${name}"`, {
    hint: `use a model directory, or one of ${names.join(', ')}`,
  });
}

/** Compiles each program once; batch and context are extents of the same program. */
export class PricedProgram implements PricedModel {
  readonly name: string;
  private readonly compilers = new Map<string, { rows: number; compile: ReturnType<typeof modelCompiler> }>();

  constructor(
    private readonly config: ModelConfig,
    private readonly formats: WeightFormats = {},
  ) {
    this.name = config.name;
  }

  workload(machine: Machine, { schedule, sockets, ...extents }: Point): Workload {
    const { batch, context, promptTokens } = extents;
    if (context > this.config.context) {
      throw new UsageError(`${this.name} has a context of ${this.config.context} positions, not ${context}`);
    }
    const { tile, capacity } = machine.onChip;
    const compressed = this.formats.compress !== false && machine.compute.weightRates?.bf16z !== undefined;
    const key = [sockets, tile.value, capacity.value, machine.memory.capacity.value, compressed].join();
    const rows = Math.max(64, batch, promptTokens ?? 0);
    let known = this.compilers.get(key);
    if (known === undefined || known.rows < rows) {
      const formats = compressed ? compressedFormats(this.config, this.formats) : this.formats;
      known = { rows, compile: compilerFor(this.config, formats, machine, sockets, rows) };
      this.compilers.set(key, known);
    }
    const { plan } = known.compile(schedule);
    return lowerProgram((promptTokens === undefined ? plan.response : undefined) ?? plan.step, extents);
  }
}

/** bf16z for bf16; a matrix whose rows do not fit it stays as it is when the program is built. */
function compressedFormats(config: ModelConfig, { quant, formats }: WeightFormats): WeightFormats {
  const compress = (format: DType): DType => (format === 'bf16' ? 'bf16z' : format);
  return {
    quant: compress(quant ?? config.dtype),
    ...(formats === undefined
      ? {}
      : { formats: new Map([...formats].map(([name, format]) => [name, compress(format)])) }),
  };
}

function compilerFor(
  config: ModelConfig,
  { quant, formats }: WeightFormats,
  { onChip, memory }: Machine,
  sockets: number,
  rows: number,
) {
  const weightFormat = quant ?? config.dtype;
  return modelCompiler(config, {
    weightFormat,
    ...(formats === undefined ? {} : { formatOf: (tensor: string) => formats.get(tensor) ?? weightFormat }),
    sockets,
    limits: { rows, samples: rows, slots: rows, context: config.context },
    capabilities: {
      memories: [
        { name: 'on chip', bytes: onChip.capacity.value },
        { name: 'memory', bytes: memory.capacity.value },
      ],
      tileBytes: onChip.tile.value,
      defaultWorkers: 1,
    },
  });
}
