/**
 * Predict, then measure: calibrates this machine, benchmarks models that the calibration has not seen under all schedules,
 * and prints the error of every prediction. Exit code 1 when the median of decoding, or of prompts, is above the threshold.
 *
 *   npm run bench:predict                                            15M, 135M and 1B, q8_0 and q4_0
 *   npm run bench:predict -- --models smollm2-135m --quants bf16 --rounds 3 --cache-dir DIR --json
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { spreadOf } from '../dist/util/statistics.js';
import { scriptOptions } from './options.mjs';

const entry = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const threshold = 0.15;

const { values } = scriptOptions({
  options: {
    models: { type: 'string', default: 'tinystories-15m,smollm2-135m,llama-3.2-1b' },
    quants: { type: 'string', default: 'q8_0,q4_0' },
    rounds: { type: 'string', default: '5' },
    'cache-dir': { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const cache = values['cache-dir'] === undefined ? [] : ['--cache-dir', values['cache-dir']];

/** What `kloop` prints as JSON; its progress goes to the terminal. */
function kloop(...args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [entry, ...args, '--json', ...cache], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (piece) => (text += piece));
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(text));
      else reject(new Error(`kloop ${args.join(' ')} ended with code ${code}`));
    });
  });
}

const quants = values.quants.split(',');
const machine = await kloop('calibrate');
const rows = [];
for (const model of values.models.split(',')) {
  for (const quant of quants) {
    const { results } = await kloop(
      'bench',
      model,
      '--quant',
      quant,
      '--prompt-tokens',
      '64',
      '--rounds',
      values.rounds,
    );
    for (const { schedule, test, tokens_per_second, predicted_tokens_per_second: predicted } of results) {
      const measured = tokens_per_second.median;
      rows.push({ model, quant, schedule, test, predicted, measured, error: predicted / measured - 1 });
    }
  }
}
/** Of decoding (`tg...`), or of prompts (`pp...`). */
function summary(kind) {
  const { median, max } = spreadOf(rows.flatMap(({ test, error }) => (test.startsWith(kind) ? [Math.abs(error)] : [])));
  return { median, worst: max };
}
const summaries = { decode: summary('tg'), prompts: summary('pp') };
if (values.json) console.log(JSON.stringify({ machine: machine.title, rows, ...summaries, threshold }, null, 2));
else {
  console.log('| model | weights | schedule | test | predicted tok/s | measured | error |');
  console.log('| --- | --- | --- | --- | ---: | ---: | ---: |');
  for (const { model, quant, schedule, test, predicted, measured, error } of rows) {
    const percent = `${error < 0 ? '-' : '+'}${Math.abs(error * 100).toFixed(0)}%`;
    console.log(
      `| ${model} | ${quant} | ${schedule} | ${test} | ${predicted.toFixed(1)} | ${measured.toFixed(1)} | ${percent} |`,
    );
  }
  console.log();
  for (const [kind, { median, worst }] of Object.entries(summaries)) {
    console.log(`${kind}: median error ${(median * 100).toFixed(1)}%, worst ${(worst * 100).toFixed(1)}%`);
  }
  console.log(`threshold of each median: ${threshold * 100}%`);
}
if (!Object.values(summaries).every(({ median }) => median <= threshold)) process.exitCode = 1;
