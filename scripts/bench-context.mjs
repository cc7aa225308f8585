/**
 * How decoding slows down as the context grows, and how much of that the bytes of the KV cache explain.
 *
 *   node scripts/bench-context.mjs [MODEL|PRESET] [--quant q8_0] [--kv f32,bf16,q8_0] [--threads 2] [--depths 8,1024,4000]
 *                                  [--tokens 32] [--rounds 5] [--before DIR]
 *
 * Every variant keeps one sequence; each round measures every variant at every depth in turn. `explained` is the part of the
 * rate at the first depth that would be left if time grew as the bytes per token do, which the kernels count; `left` is
 * the part that was measured, in the same round; the last column is what `left` falls short of `explained` (or exceeds it
 * by, where it is negative). With --before, a build of another revision (its repository, built) is measured in turn.
 */
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { scriptOptions } from './options.mjs';

const { values: flags, positionals } = scriptOptions({
  allowPositionals: true,
  options: {
    quant: { type: 'string', default: 'q8_0' },
    kv: { type: 'string', default: 'f32,bf16,q8_0' },
    threads: { type: 'string', default: '2' },
    depths: { type: 'string', default: '8,1024,4000' },
    tokens: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '5' },
    before: { type: 'string' },
  },
});
const model = positionals[0] ?? 'smollm2-135m';
const depths = flags.depths.split(',').map(Number);
const [threads, tokens, rounds] = [flags.threads, flags.tokens, flags.rounds].map(Number);
const rows = 64;
const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: [0, 0], remaining: 1e6 };

async function build(name, directory) {
  const load = (file) => import(pathToFileURL(join(directory, 'dist', file)).href);
  const [{ createCpuBackend }, { compileModel }, { openSubject }, { defaultCacheDir }, { formatTable }, { median }] =
    await Promise.all(
      [
        'backends/cpu/index.js',
        'passes/pipeline.js',
        'bench/subject.js',
        'backends/cache-dir.js',
        'util/table.js',
        'util/statistics.js',
      ].map(load),
    );
  return { name, createCpuBackend, compileModel, openSubject, defaultCacheDir, formatTable, median };
}

async function prepare(from, kv) {
  const backend = from.createCpuBackend();
  const cacheDir = from.defaultCacheDir();
  const { checkpoint } = await from.openSubject(model, {
    quant: flags.quant,
    cacheDir,
    onBytes: () => undefined,
    onNotice: (line) => console.error(line),
  });
  const context = Math.ceil((Math.max(...depths) + tokens) / 256) * 256;
  const { plan } = from.compileModel(checkpoint.config, {
    schedule: 'response',
    limits: { rows, samples: 1, slots: 1, context },
    weightFormat: flags.quant,
    stateFormat: kv,
    capabilities: backend.capabilities,
    workers: threads,
  });
  const executable = await backend.prepare(plan, checkpoint.weights, { cacheDir, threads });
  const { vocab } = checkpoint.config;
  const variant = { name: `${from.name} ${kv}`, executable, vocab, runs: depths.map(() => []) };
  const last = Math.max(...depths);
  for (let at = 0; at < last; at += rows) {
    const count = Math.min(rows, last - at);
    await executable.run({ ...rowsFrom(at, count, vocab), index: new Int32Array(0), sampling: [], steps: 1 });
  }
  return variant;
}

function rowsFrom(position, count, vocab) {
  return {
    tokens: Int32Array.from({ length: count }, (_, i) => ((position + i) * 7919) % vocab),
    positions: Int32Array.from({ length: count }, (_, i) => position + i),
    slots: new Int32Array(count),
    stopTokens: [],
  };
}

/** Seconds and bytes per token, at a position of the sequence. */
async function decode({ executable, vocab }, position) {
  const step = { ...rowsFrom(position, 1, vocab), index: Int32Array.of(0), sampling: [greedy] };
  // Another variant has had the caches, and the workers sleep.
  await executable.run({ ...step, steps: 8 });
  const before = executable.counters.bytesRead;
  const start = performance.now();
  await executable.run({ ...step, steps: tokens });
  const seconds = (performance.now() - start) / 1000 / tokens;
  return { seconds, bytes: (executable.counters.bytesRead - before) / tokens };
}

const now = await build('now', resolve(import.meta.dirname, '..'));
const builds = flags.before === undefined ? [now] : [await build('before', resolve(flags.before)), now];
const variants = [];
for (const from of builds) {
  const { stateFormats } = from.createCpuBackend().capabilities;
  for (const kv of flags.kv.split(',').filter((format) => stateFormats.includes(format))) {
    variants.push(await prepare(from, kv));
  }
}
// The first round warms up.
for (let round = 0; round <= rounds; round++) {
  for (const variant of variants) {
    for (const [at, depth] of depths.entries()) {
      const run = await decode(variant, depth);
      if (round > 0) variant.runs[at].push(run);
    }
  }
}
const percent = (ratio) => `${(100 * ratio).toFixed(0)}%`;
const table = variants.flatMap(({ name, runs }) =>
  depths.map((depth, at) => {
    const first = runs[0];
    const explained = first[0].bytes / runs[at][0].bytes;
    const left = now.median(runs[at].map(({ seconds }, round) => first[round].seconds / seconds));
    const rate = 1 / now.median(runs[at].map(({ seconds }) => seconds));
    const bytes = runs[at][0].bytes;
    return [
      name,
      String(depth),
      rate.toFixed(0),
      (bytes / 1e6).toFixed(1),
      ((bytes * rate) / 1e9).toFixed(1),
      percent(explained),
      percent(left),
      percent(1 - left / explained),
    ];
  }),
);
const titles = ['kv', 'depth', 'tok/s', 'MB/token', 'GB/s', 'explained', 'left', 'short of it'];
console.log(`${model}, ${flags.quant} weights, ${threads} threads, ${rounds} rounds of ${tokens} tokens`);
const right = titles.slice(1).map((title) => ({ title, align: 'right' }));
for (const line of now.formatTable([{ title: titles[0] }, ...right], table)) console.log(line);
for (const { executable } of variants) await executable.close();
process.exit(0);
