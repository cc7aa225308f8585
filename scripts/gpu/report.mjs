/**
 * What scripts/gpu-report.mjs measures: the gate and the times of every variant, written down as they come, with a list of
 * what is still missing. No measurement is begun after the deadline.
 */
import { availableParallelism } from 'node:os';
import { createCpuBackend } from '../../dist/backends/cpu/index.js';
import { float32InstructionSet } from '../../dist/backends/cpu/instruction-set.js';
import { gateOf } from '../../dist/bench/gate.js';
import { fillerTokens } from '../../dist/bench/workload.js';
import { modelCompiler } from '../../dist/passes/pipeline.js';
import { median } from '../../dist/util/statistics.js';
import { noiseWeights, writePackedNoise } from './packed-noise.mjs';

/** In this order, so that a run that is cut short has the one that counts and the baseline. */
export const variants = [
  { name: 'response', schedule: 'response' },
  { name: 'operator', schedule: 'operator' },
  { name: 'looped', schedule: 'looped' },
  { name: 'layer', schedule: 'layer' },
  { name: 'operator, single launches', schedule: 'operator', launches: 'single' },
];

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: [0, 0], remaining: 1e9 };

/** A request for the rows of one sequence; every row's next token is wanted. */
function stepOf(tokens, position, options = {}) {
  const count = tokens.length;
  return {
    tokens: Int32Array.from(tokens),
    positions: Int32Array.from(tokens, (_, i) => position + i),
    slots: new Int32Array(count),
    index: Int32Array.from(tokens, (_, i) => i),
    sampling: tokens.map(() => greedy),
    stopTokens: [],
    steps: 1,
    ...options,
  };
}

/**
 * Runs everything for `models` on `backend`; `write` is given the report after every part.
 * @param isLate whether nothing more may be begun
 */
export async function gpuReport({ backend, models, cacheDir, isLate, sizes, write, log = () => undefined }) {
  const report = {
    made: new Date().toISOString(),
    device: backend.device,
    capabilities: backend.capabilities,
    missing: partsOf(models, sizes),
    models: models.map(({ name, published, config }) => ({ name, layers: config.layers, published, schedules: {} })),
  };
  // Before anything takes long: a run that ends in its first part says so, too.
  write(report);
  const run = new Run({ backend, cacheDir, isLate, sizes, log, report, write: () => write(report) });
  try {
    await run.bandwidth();
    await run.prepareAll(models);
    for (const [index, model] of models.entries()) await run.model(model, report.models[index]);
  } catch (error) {
    report.error = error instanceof Error ? error.message : String(error);
    throw error;
  } finally {
    write(report);
  }
  return report;
}

const bandwidthPart = 'memory bandwidth';
const gatePart = (model, variant) => `${model}, ${variant}: gate`;
const timePart = (model, variant, position) => `${model}, ${variant}: after ${position} tokens`;

/** Everything that a report has, by name. */
function partsOf(models, { groups }) {
  const positions = groups.flatMap((group) => group.positions);
  return [
    bandwidthPart,
    ...models.flatMap(({ name: model }) =>
      variants.flatMap(({ name }) => [
        gatePart(model, name),
        ...positions.map((position) => timePart(model, name, position)),
      ]),
    ),
  ];
}

class Run {
  /** By model, limits and backend. */
  compilers = new Map();

  constructor(context) {
    Object.assign(this, context);
  }

  done(part) {
    this.report.missing = this.report.missing.filter((other) => other !== part);
    this.write();
  }

  async bandwidth() {
    if (this.isLate()) return;
    this.log(bandwidthPart);
    const meter = await this.backend.openBandwidthMeter(this.cacheDir);
    const all = Array.from({ length: 5 }, () => meter.measure());
    meter.close();
    this.report.readBytesPerSec = { median: median(all), all };
    this.done(bandwidthPart);
  }

  /** Limits are those of the text: what a cache of 16 K positions costs does not burden short ones. */
  plan({ name, config }, schedule, { context }, backend = this.backend) {
    const key = [name, config.layers, context, backend.name].join();
    let compile = this.compilers.get(key);
    if (compile === undefined) {
      const limits = { rows: 8, samples: 8, slots: 1, context };
      compile = modelCompiler(config, { limits, capabilities: backend.capabilities });
      this.compilers.set(key, compile);
    }
    return compile(schedule).plan;
  }

  /** All kernels, on as many processors as there are, and all weights: nothing of it is measured. */
  async prepareAll(models) {
    const schedules = new Set(variants.map(({ schedule }) => schedule));
    const plans = models.flatMap((model) =>
      this.sizes.groups.flatMap((group) => [...schedules].map((schedule) => this.plan(model, schedule, group))),
    );
    this.log(`compiling ${plans.length} programs, and writing weights`);
    const compileNext = async () => {
      for (let plan = plans.shift(); plan !== undefined && !this.isLate(); plan = plans.shift())
        await this.backend.compile(plan, { cacheDir: this.cacheDir });
    };
    const compiling = Promise.all(Array.from({ length: availableParallelism() }, compileNext));
    const writing = this.writeWeights(models);
    const [compiled, written] = await Promise.allSettled([compiling, writing]);
    if (compiled.status === 'rejected') throw compiled.reason;
    if (written.status === 'rejected') throw written.reason;
  }

  async writeWeights(models) {
    for (const model of models) {
      const { step } = this.plan(model, 'looped', this.sizes.groups[0]);
      if (this.isLate()) return;
      const bytes = await writePackedNoise(step, model.config, this.cacheDir);
      this.log(`${model.name}: ${(bytes / 1e9).toFixed(1)} GB of random weights written`);
    }
  }

  async model(model, entry) {
    if (this.isLate()) return;
    this.log(`${model.name}: float32 logits on the processor`);
    const [first] = this.sizes.groups;
    const cpu = createCpuBackend();
    const judge = { schedule: 'looped', instructionSet: float32InstructionSet().name };
    const expected = await this.withExecutable(cpu, model, judge, first, (executable) =>
      this.gateLogits(executable, model.config),
    );
    // Logits of the first variant, which those of all others equal bit for bit.
    let sameAs;
    for (const variant of variants) {
      for (const group of this.sizes.groups) {
        if (this.isLate()) return;
        this.log(`${model.name}: ${variant.name}, context ${group.context}`);
        await this.withExecutable(this.backend, model, variant, group, async (executable) => {
          const result = (entry.schedules[variant.name] ??= { contexts: {} });
          if (result.gate === undefined) {
            const actual = await this.gateLogits(executable, model.config);
            Object.assign(result, gateOf(actual, expected));
            sameAs ??= actual.logits;
            entry.sameBits = (entry.sameBits ?? true) && haveSameBits(actual.logits, sameAs);
            this.done(gatePart(model.name, variant.name));
          }
          for (const position of group.positions) {
            const times = await this.decode(executable, position);
            if (times === undefined) return;
            result.contexts[position] = times;
            this.done(timePart(model.name, variant.name, position));
          }
        });
      }
    }
  }

  async withExecutable(backend, model, { schedule, launches, instructionSet }, group, use) {
    const plan = this.plan(model, schedule, group, backend);
    await writePackedNoise(plan.step, model.config, this.cacheDir);
    const options = {
      cacheDir: this.cacheDir,
      ...(launches === undefined ? {} : { launches }),
      ...(instructionSet === undefined ? {} : { instructionSet }),
    };
    const executable = await backend.prepare(plan, noiseWeights(model.config), options);
    try {
      return await use(executable);
    } finally {
      await executable.close();
    }
  }

  /** The logits behind every token of a text, one row at a time and eight at a time. */
  async gateLogits(executable, { vocab }) {
    const text = fillerTokens(this.sizes.gateTokens, vocab);
    const logits = [];
    for (const rows of [8, 1]) {
      await executable.reset();
      for (let at = 0; at < text.length; at += rows) {
        const part = text.slice(at, at + rows);
        const { logits: made } = await executable.run(stepOf(part, at, { wantLogits: true }));
        part.forEach((_, row) => logits.push(made.slice(row * vocab, (row + 1) * vocab)));
      }
    }
    return { text, logits };
  }

  /**
   * Decoding at a position, whose cache is empty where no text was read: what is read of it is the same. Undefined where the
   * deadline came before all rounds were done.
   */
  async decode(executable, position) {
    const { decodeTokens, rounds } = this.sizes;
    const runs = [];
    // The first is to warm up.
    for (let round = 0; round <= rounds; round++) {
      if (this.isLate()) return undefined;
      const run = await timed(executable, position, decodeTokens);
      if (round > 0) runs.push(run);
    }
    const all = runs.map(({ us }) => us);
    const last = runs.at(-1);
    const roofline = this.report.readBytesPerSec.median;
    return {
      usPerToken: { median: median(all), all },
      bandwidthShare: last.bytes / (median(all) / 1e6) / roofline,
      kernelCallsPerToken: last.kernelCalls,
      handOffsPerToken: last.handOffs,
      bytesPerToken: last.bytes,
      // All blocks together.
      waitNsPerToken: last.waitNs,
    };
  }
}

async function timed(executable, position, count) {
  const before = executable.counters;
  const start = performance.now();
  const { tokens } = await executable.run(stepOf([1], position, { steps: count }));
  const us = ((performance.now() - start) * 1000) / tokens[0].length;
  const after = executable.counters;
  const per = (key) => (after[key] - before[key]) / tokens[0].length;
  return {
    us,
    kernelCalls: per('kernelCalls'),
    handOffs: per('barriers'),
    bytes: per('bytesRead'),
    waitNs: per('waitNs'),
  };
}

function haveSameBits(logits, others) {
  return logits.every((row, i) => Buffer.from(row.buffer).equals(Buffer.from(others[i].buffer)));
}

/** Lines about what failed in a report; none where every variant passed the gate with the same bits. */
export function failuresOf({ models }) {
  return models.flatMap(({ name, schedules, sameBits }) => [
    ...Object.entries(schedules)
      .filter(([, { gate }]) => gate !== 'passed')
      .map(
        ([schedule, { meanKl, nllShift }]) =>
          `${name}, ${schedule}: gate failed, KL divergence ${meanKl}, negative log-likelihood off by ${nllShift}`,
      ),
    ...(sameBits === false ? [`${name}: logits of the schedules are not equal bit for bit`] : []),
  ]);
}
