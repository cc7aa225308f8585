/**
 * One command on a machine with a GPU: builds, checks the numbers, then times, and writes a report after every part, so
 * that a run that is cut short leaves what it has. Needs Node, nvcc, the driver, and `npm run build` before.
 *
 *   node scripts/gpu-report.mjs [--out FILE] [--cache DIR] [--seconds N] [PRESET[:LAYERS] ...]
 *
 * Without presets: llama-3.2-1b whole, and llama-3.1-8b cut to 4 layers. Weights are random, so that speed says something
 * and text does not. The gate: logits of every schedule are equal bit for bit, and against the cpu backend on the same
 * weights (float32 arithmetic) the mean KL divergence stays below 1e-4 and the mean negative log-likelihood of the next
 * tokens moves by less than 1e-3. A result whose gate failed says `"gate": "failed"`, is no result,
 * and makes the exit code 1.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { createCpuBackend } = await import('../dist/backends/cpu/index.js');
const { gateOf, gateTokens } = await import('../dist/bench/gate.js');
const { openCheckpoint } = await import('../dist/checkpoint/directory.js');
const { writeSynthetic } = await import('../dist/checkpoint/synth.js');
const { schedules } = await import('../dist/ir/program.js');
const { findPreset } = await import('../dist/models/presets.js');
const { compileModel } = await import('../dist/passes/pipeline.js');
const { median } = await import('../dist/util/statistics.js');

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

function fillerTokens(count, vocab) {
  return Array.from({ length: count }, (_, i) => (i * 7919 + 13) % vocab);
}

/** Seconds since the script began, for the log and the deadline. */
const begun = performance.now();
const seconds = () => (performance.now() - begun) / 1000;
const log = (line) => console.error(`${seconds().toFixed(1).padStart(7)} s  ${line}`);

/** Runs everything for `models` on `backend`; `write` is given the report after every part. */
export async function gpuReport({ backend, models, cacheDir, deadline, sizes, write }) {
  const report = { made: new Date().toISOString(), capabilities: backend.capabilities, models: [] };
  log('memory bandwidth');
  const meter = await backend.openBandwidthMeter(cacheDir);
  const bandwidths = Array.from({ length: 5 }, () => meter.measure());
  meter.close();
  report.readBytesPerSec = { median: median(bandwidths), all: bandwidths };
  write(report);
  for (const model of models) {
    const entry = { name: model.name, layers: model.config.layers, published: model.published, schedules: {} };
    report.models.push(entry);
    if (seconds() > deadline) {
      entry.cutShort = 'the whole model was not run';
      write(report);
      continue;
    }
    await reportModel(
      { backend, model, cacheDir, deadline, sizes, entry, roofline: report.readBytesPerSec.median },
      () => write(report),
    );
  }
  return report;
}

async function reportModel(context, save) {
  const { model, cacheDir, entry, deadline } = context;
  const directory = join(cacheDir, 'synthetic', `${model.name}-${model.config.layers}`);
  if (!existsSync(join(directory, 'config.json'))) {
    log(`${model.name}: writing random weights`);
    await writeSynthetic(model.config, directory);
  }
  const { weights } = openCheckpoint(directory, model.name);
  try {
    log(`${model.name}: float32 logits on the processor`);
    const gateContext = context.sizes.groups[0].context;
    const expected = await withExecutable(
      { ...context, backend: createCpuBackend() },
      weights,
      'looped',
      gateContext,
      gateLogits(context),
    );
    save();
    for (const schedule of [...schedules].reverse()) {
      if (seconds() > deadline) {
        entry.cutShort = `${schedule} and what follows were not run`;
        break;
      }
      log(`${model.name}: ${schedule}`);
      const result = { contexts: {} };
      for (const group of context.sizes.groups) {
        await withExecutable(context, weights, schedule, group.context, async (executable) => {
          if (result.gate === undefined) {
            const actual = await gateLogits(context)(executable);
            Object.assign(result, gateOf(actual, expected));
            entry.sameBits = (entry.sameBits ?? true) && sameAsFirst(entry, actual);
          }
          Object.assign(result.contexts, await timesOf(context, group.positions, executable));
        });
      }
      entry.schedules[schedule] = result;
      save();
    }
  } finally {
    delete entry.first;
    weights.close();
  }
}

/** Logits of all schedules are equal bit for bit. The first ones are kept on the entry, out of its JSON. */
function sameAsFirst(entry, { logits }) {
  if (entry.first === undefined) Object.defineProperty(entry, 'first', { value: logits, configurable: true });
  return logits.every((row, i) => Buffer.from(row.buffer).equals(Buffer.from(entry.first[i].buffer)));
}

/** Limits are those of the text: what a cache of 16 K positions costs does not burden short ones. */
async function withExecutable({ backend, model, cacheDir }, weights, schedule, length, use) {
  const limits = { rows: 8, samples: 8, slots: 1, context: length };
  const { plan } = compileModel(model.config, { schedule, limits, capabilities: backend.capabilities });
  const executable = await backend.prepare(plan, weights, { cacheDir });
  try {
    return await use(executable);
  } finally {
    await executable.close();
  }
}

/** The logits behind every token of a text, one row at a time and eight at a time. */
function gateLogits({ model, sizes }) {
  return async (executable) => {
    const { vocab } = model.config;
    const text = fillerTokens(sizes.gateTokens, vocab);
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
  };
}

/** Lines about what failed in a report; none where every schedule passed the gate with the same bits. */
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

/** Decoding after 32 tokens, and at positions far into a context whose cache is empty: what is read is the same. */
async function timesOf({ sizes, roofline }, positions, executable) {
  const timed = async (position, count) => {
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
  };
  const decode = async (position) => {
    await timed(position, sizes.decodeTokens);
    const runs = [];
    for (let round = 0; round < sizes.rounds; round++) runs.push(await timed(position, sizes.decodeTokens));
    const us = runs.map((run) => run.us);
    const last = runs.at(-1);
    return {
      usPerToken: { median: median(us), all: us },
      bandwidthShare: last.bytes / (median(us) / 1e6) / roofline,
      kernelCallsPerToken: last.kernelCalls,
      handOffsPerToken: last.handOffs,
      bytesPerToken: last.bytes,
      // All blocks together.
      waitNsPerToken: last.waitNs,
    };
  };
  const contexts = {};
  for (const position of positions) contexts[position] = await decode(position);
  return contexts;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { out: { type: 'string' }, cache: { type: 'string' }, seconds: { type: 'string' } },
  });
  const { createCudaBackend } = await import('../dist/backends/cuda/index.js');
  const named = positionals.length > 0 ? positionals : ['llama-3.2-1b', 'llama-3.1-8b:4'];
  const models = named.map((text) => {
    const [name, layers] = text.split(':');
    const { config } = findPreset(name) ?? {};
    if (config === undefined) throw new Error(`no preset ${name}`);
    const count = layers === undefined ? config.layers : Number(layers);
    const windows = config.windows.slice(0, count);
    return { name, published: { layers: config.layers }, config: { ...config, dtype: 'bf16', layers: count, windows } };
  });
  const out = values.out ?? 'gpu-report.json';
  mkdirSync(dirname(out), { recursive: true });
  const report = await gpuReport({
    backend: createCudaBackend(),
    models,
    cacheDir: values.cache ?? join(process.cwd(), '.gpu-report'),
    deadline: Number(values.seconds ?? 420),
    sizes: {
      gateTokens,
      decodeTokens: 128,
      rounds: 5,
      groups: [
        { context: 2048, positions: [32, 1024] },
        { context: 16384 + 256, positions: [4096, 16384] },
      ],
    },
    write: (report) => writeFileSync(out, `${JSON.stringify(report, null, 1)}\n`),
  });
  log(`wrote ${out}`);
  const failures = failuresOf(report);
  for (const failure of failures) log(failure);
  if (failures.length > 0) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
