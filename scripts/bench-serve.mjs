/* global fetch */
/**
 * Load on a server: starts `kloop serve` with a model (or the random weights of a preset), or takes one that runs, and
 * prints the block of `vllm bench serve` for every number of streams, and how throughput grows with them.
 *
 *   npm run bench:serve                                              smollm2-135m in bf16, 1 and 8 streams
 *   npm run bench:serve -- MODEL --quant q8_0 --streams 1,4,16 --input-tokens 512 --output-tokens 128 --rounds 3
 *   npm run bench:serve -- MODEL --url http://127.0.0.1:8080 --vocab 32000 --rate 4 --requests 100
 */
import { defaultCacheDir } from '../dist/backends/cache-dir.js';
import { openSubject } from '../dist/bench/subject.js';
import { runLoad } from '../dist/bench/serve/load.js';
import { reportLines, reportOf } from '../dist/bench/serve/report.js';
import { startServe } from '../dist/bench/serve/serve-process.js';
import { median } from '../dist/util/statistics.js';
import { scriptOptions } from './options.mjs';

const { values, positionals } = scriptOptions({
  allowPositionals: true,
  options: {
    url: { type: 'string' },
    'api-key': { type: 'string' },
    quant: { type: 'string', default: 'bf16' },
    threads: { type: 'string' },
    streams: { type: 'string', default: '1,8' },
    requests: { type: 'string' },
    rate: { type: 'string' },
    'input-tokens': { type: 'string', default: '64' },
    'output-tokens': { type: 'string', default: '128' },
    rounds: { type: 'string', default: '3' },
    vocab: { type: 'string' },
    'cache-dir': { type: 'string', default: defaultCacheDir() },
    json: { type: 'boolean', default: false },
  },
});
const spec = positionals[0] ?? 'smollm2-135m';
const [input, output, rounds] = [values['input-tokens'], values['output-tokens'], values.rounds].map(Number);
const streams = values.streams.split(',').map(Number);
const most = Math.max(...streams);

/** The server, the name of its model, and how many tokens there are. */
async function target() {
  if (values.url !== undefined) {
    return { url: values.url, model: spec, vocab: Number(values.vocab ?? 256), stop: async () => undefined };
  }
  const { checkpoint } = await openSubject(spec, {
    cacheDir: values['cache-dir'],
    quant: values.quant,
    onBytes: () => undefined,
    onNotice: (line) => console.error(line),
  });
  const { path, config } = checkpoint;
  checkpoint.weights.close();
  const context = Math.min(config.context, input + output);
  const threads = values.threads === undefined ? [] : ['--threads', values.threads];
  const args = ['--quant', values.quant, '--slots', String(most), '--context', String(context), ...threads];
  const server = await startServe(path, [...args, '--cache-dir', values['cache-dir']]);
  const { data } = await (await fetch(new URL('/v1/models', server.url))).json();
  return { ...server, model: data[0].id, vocab: config.vocab };
}

const server = await target();
const reports = streams.map(() => []);
try {
  const load = (count, requests, seed) =>
    runLoad({
      ...{ url: server.url, model: server.model, vocab: server.vocab, seed, streams: count, requests },
      ...{ inputTokens: input, outputTokens: output },
      ...(values.rate === undefined ? {} : { rate: Number(values.rate) }),
      ...(values['api-key'] === undefined ? {} : { apiKey: values['api-key'] }),
    });
  await load(most, most, 1);
  // In turn, so that a slow minute hits all.
  for (let round = 0; round < rounds; round++) {
    for (const [i, count] of streams.entries()) {
      const requests = Number(values.requests ?? 2 * count);
      reports[i].push(reportOf(await load(count, requests, 100 + round * streams.length + i)));
      console.error(`round ${round + 1} of ${rounds}: ${count} streams done`);
    }
  }
} finally {
  await server.stop();
}

const throughput = (round) => round.outputThroughput;
const best = reports.map((own) => [...own].sort((a, b) => throughput(a) - throughput(b))[own.length >> 1]);
const ratios = reports.map((own) =>
  median(own.map((report, round) => throughput(report) / throughput(reports[0][round]))),
);
if (values.json) {
  const rows = streams.map((count, i) => ({
    streams: count,
    ratio_to_first: ratios[i],
    median: best[i],
    rounds: reports[i],
  }));
  console.log(JSON.stringify({ model: spec, quant: values.quant, input, output, results: rows }, null, 2));
} else {
  for (const [i, count] of streams.entries()) {
    console.log(
      `\n${spec}, ${values.quant}, ${count} streams, ${input} tokens in, ${output} out; the median of ${rounds} rounds`,
    );
    for (const line of reportLines(best[i])) console.log(line);
    if (i > 0)
      console.log(`${ratios[i].toFixed(2)} times the output throughput of ${streams[0]} streams, in the same round`);
  }
}
if (reports.flat().some(({ failed }) => failed > 0)) {
  console.error(`requests failed: ${reports.flat().find(({ error }) => error !== undefined).error}`);
  process.exitCode = 1;
}
