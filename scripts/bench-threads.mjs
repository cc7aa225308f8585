/**
 * What decoding loses where threads do not have a core each: with twice as many threads as cores, and beside other
 * processes that are busy.
 *
 *   npm run bench:threads -- [MODEL|PRESET ...] [--quant q8_0] [--schedule response] [--tokens 64] [--rounds 7]
 *
 * Everything is measured in turn, in every round. The last column is the speed as a part of that of the best number of
 * threads with nobody beside it, in the same rounds. Before it stands the part of the cores that a fair scheduler gives us:
 * what to expect.
 */
import { spawn } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { createCpuBackend } from '../dist/backends/cpu/index.js';
import { physicalCores } from '../dist/backends/cpu/processors.js';
import { defaultCacheDir } from '../dist/backends/cache-dir.js';
import { measureRounds } from '../dist/bench/rounds.js';
import { planRun, threadCounts } from '../dist/bench/settings.js';
import { openSubject } from '../dist/bench/subject.js';
import { Variant } from '../dist/bench/variant.js';
import { chooseFormats, compressed } from '../dist/runtime/formats.js';
import { ratioOf, spreadOf } from '../dist/util/statistics.js';
import { formatTable } from '../dist/util/table.js';
import { significant } from '../dist/util/units.js';
import { scriptOptions } from './options.mjs';

const { values: flags, positionals } = scriptOptions({
  allowPositionals: true,
  options: {
    quant: { type: 'string', default: 'q8_0' },
    schedule: { type: 'string', default: 'response' },
    tokens: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '7' },
  },
});
const models = positionals.length > 0 ? positionals : ['tinystories-15m', 'smollm2-135m'];
const [tokens, rounds] = [flags.tokens, flags.rounds].map(Number);
const cores = physicalCores();
const cacheDir = defaultCacheDir();
const notice = (line) => console.error(`bench-threads: ${line}`);

/** Keeps a core busy between a 1 and a 0 on its stdin. Ends when that closes, so with us, however we end. */
const busyProgram = `let busy = false;
const spin = () => { for (const end = Date.now() + 5; busy && Date.now() < end; ); if (busy) setImmediate(spin); };
process.stdin.setEncoding('utf8').on('end', () => process.exit());
process.stdin.on('data', (text) => { busy = text.endsWith('1'); spin(); });`;

function startNeighbours(count) {
  const stdio = ['pipe', 'ignore', 'inherit'];
  return Array.from({ length: count }, () => spawn(process.execPath, ['-e', busyProgram], { stdio }));
}

/** A variant that is measured while neighbours run. */
function beside(variant, neighbours) {
  const time = async (workload) => {
    for (const { stdin } of neighbours) stdin.write('1');
    // Until they all run.
    if (neighbours.length > 0) await pause(50);
    try {
      return await variant.time(workload);
    } finally {
      for (const { stdin } of neighbours) stdin.write('0');
    }
  };
  return { identity: variant.identity, neighbours: neighbours.length, time };
}

async function measure(model, neighbours) {
  const { checkpoint } = await openSubject(model, {
    ...{ quant: flags.quant, cacheDir, onNotice: notice },
    onBytes: () => undefined,
  });
  const backend = createCpuBackend();
  const plan = planRun(checkpoint.config, { tokens, promptTokens: 0 });
  const plain = chooseFormats(checkpoint, backend, { quant: flags.quant }, notice);
  const formats = await compressed(plain, checkpoint, backend, { cacheDir });
  const variants = [];
  try {
    for (const threads of [...threadCounts(cores), 2 * cores]) {
      variants.push(
        await Variant.prepare(checkpoint, {
          ...{ backend, schedule: flags.schedule, threads, formats, limits: plan.limits, cacheDir },
        }),
      );
    }
    const perCore = variants.find(({ identity }) => identity.threads === cores);
    const candidates = [
      ...variants.map((variant) => beside(variant, [])),
      ...[1, cores].map((count) => beside(perCore, neighbours.slice(0, count))),
    ];
    const { series } = await measureRounds(candidates, plan.workloads, { rounds });
    return series.map(({ identity, samples }, i) => ({
      threads: identity.threads,
      neighbours: candidates[i].neighbours,
      rates: samples.map((sample) => (sample.tokens / sample.milliseconds) * 1000),
    }));
  } finally {
    for (const variant of variants) await variant.close();
    checkpoint.weights.close();
  }
}

/** Where every thread and every neighbour gets as much as any other. */
function fairPart({ threads, neighbours }) {
  return threads / (threads + neighbours);
}

const range = ({ median, min, max }, show) => `${show(median)} (${show(min)}..${show(max)})`;

const neighbours = startNeighbours(cores);
const rows = [];
try {
  for (const model of models) {
    const results = await measure(model, neighbours);
    const alone = results.filter((result) => result.neighbours === 0 && result.threads <= cores);
    const best = alone.reduce((a, b) => (spreadOf(b.rates).median > spreadOf(a.rates).median ? b : a));
    for (const result of results) {
      rows.push([
        model,
        String(result.threads),
        String(result.neighbours),
        range(spreadOf(result.rates), significant),
        significant(fairPart(result)),
        range(ratioOf(result.rates, best.rates), significant),
      ]);
    }
  }
} finally {
  for (const { stdin } of neighbours) stdin.end();
}
console.log(`${cores} cores, ${flags.quant}, ${flags.schedule}, tg${tokens}, ${rounds} rounds in turn`);
const right = { align: 'right' };
const titles = ['model', 'threads', 'busy beside', 'tok/s (min..max)', 'fair', 'of the best alone'];
const columns = titles.map((title) =>
  ['threads', 'busy beside', 'fair'].includes(title) ? { title, ...right } : { title },
);
for (const line of formatTable(columns, rows)) console.log(line);
