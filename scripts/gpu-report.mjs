/**
 * One command on a machine with a GPU: builds, checks the numbers, then times, and writes a report after every part, so that a
 * run that is cut short leaves what it has and names what is missing. Needs Node, the driver, and libnvrtc or nvcc.
 *
 *   node scripts/gpu-report.mjs [--out FILE] [--cache DIR] [--seconds N] [PRESET[:LAYERS] ...]
 *
 * Without presets: llama-3.2-1b and llama-3.1-8b, whole. Weights are random, so that speed says something and text does not.
 * The gate: logits of all variants are equal bit for bit, and against the cpu backend on the same weights (float32
 * arithmetic) the mean KL divergence and the mean shift of the negative log-likelihood of the next tokens stay within the
 * limits of src/bench/gate.ts. A result whose gate failed says `"gate": "failed"`, is no result, and makes the exit code 1. Nothing
 * is begun after N seconds (420), and after 50 more the script ends whatever it is at; the exit code is 3 where parts are missing.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const begun = performance.now();
const seconds = () => (performance.now() - begun) / 1000;
const log = (line) => console.error(`${seconds().toFixed(1).padStart(7)} s  ${line}`);

const graceSeconds = 50;
const exitCodes = { failed: 1, usage: 2, incomplete: 3 };

/** What the user can do something about: one line, no stack. */
class Refusal extends Error {
  constructor(message, exitCode = exitCodes.failed) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Compiles the TypeScript where what is in dist/ is missing, or older than a source. */
function build() {
  // Written by every build that found a change, unlike the files whose own sources have none.
  const made = join(root, 'dist/.tsbuildinfo');
  const sources = readdirSync(join(root, 'src'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts'))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const newest = Math.max(...sources.map((path) => statSync(path).mtimeMs));
  if (existsSync(made) && statSync(made).mtimeMs >= newest) return;
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const state = existsSync(made) ? 'older than src' : 'missing';
  if (!existsSync(compiler)) throw new Refusal(`dist is ${state}, and there is no TypeScript; run npm ci first`);
  log(`building: dist is ${state}`);
  const { status } = spawnSync(process.execPath, [compiler, '-p', join(root, 'tsconfig.build.json')], {
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) throw new Refusal('the build failed; what it said stands above');
}

async function modelsOf(named) {
  const { findPreset } = await import('../dist/models/presets.js');
  return named.map((text) => {
    const [name, layers] = text.split(':');
    const { config } = findPreset(name) ?? {};
    if (config === undefined)
      throw new Refusal(`no preset ${name}; kloop bench --help says which there are`, exitCodes.usage);
    const count = layers === undefined ? config.layers : Number(layers);
    if (!(Number.isInteger(count) && count >= 1 && count <= config.layers))
      throw new Refusal(`${text}: ${name} has 1 to ${config.layers} layers`, exitCodes.usage);
    const windows = config.windows.slice(0, count);
    return { name, published: { layers: config.layers }, config: { ...config, dtype: 'bf16', layers: count, windows } };
  });
}

function options() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { out: { type: 'string' }, cache: { type: 'string' }, seconds: { type: 'string' } },
    });
  } catch (error) {
    throw new Refusal(error.message, exitCodes.usage);
  }
}

async function main() {
  const { values, positionals } = options();
  const deadline = Number(values.seconds ?? 420);
  if (!(deadline > 0)) throw new Refusal(`--seconds is ${values.seconds}, must be a number above 0`, exitCodes.usage);
  build();
  const { createCudaBackend } = await import('../dist/backends/cuda/index.js');
  const { gateTokens } = await import('../dist/bench/gate.js');
  const { failuresOf, gpuReport } = await import('./gpu/report.mjs');
  const models = await modelsOf(positionals.length > 0 ? positionals : ['llama-3.2-1b', 'llama-3.1-8b']);
  const backend = createCudaBackend();
  const out = values.out ?? 'gpu-report.json';
  mkdirSync(dirname(out), { recursive: true });
  let latest;
  const finish = (report) => {
    log(`wrote ${out}`);
    const failures = failuresOf(report);
    for (const failure of failures) log(failure);
    if (report.missing.length > 0)
      log(`${report.missing.length} parts are missing, the first of them ${report.missing[0]}`);
    process.exitCode = failures.length > 0 ? exitCodes.failed : report.missing.length > 0 ? exitCodes.incomplete : 0;
  };
  const stop = setTimeout(
    () => {
      log('out of time');
      process.exitCode = exitCodes.incomplete;
      if (latest !== undefined) finish(latest);
      process.exit();
    },
    (deadline + graceSeconds - seconds()) * 1000,
  );
  try {
    const report = await gpuReport({
      backend,
      models,
      cacheDir: values.cache ?? join(process.cwd(), '.gpu-report'),
      isLate: () => seconds() > deadline,
      log,
      sizes: {
        gateTokens,
        decodeTokens: 128,
        rounds: 5,
        groups: [
          { context: 2048, positions: [32, 1024] },
          { context: 16384 + 256, positions: [4096, 16384] },
        ],
      },
      write: (report) => {
        latest = report;
        writeFileSync(out, `${JSON.stringify(report, null, 1)}\n`);
      },
    });
    finish(report);
  } finally {
    clearTimeout(stop);
  }
}

try {
  await main();
} catch (error) {
  const { KloopError } = await import('../dist/util/errors.js').catch(() => ({ KloopError: Refusal }));
  // Anything else is a bug, and its stack says where.
  if (!(error instanceof Refusal) && !(error instanceof KloopError)) throw error;
  console.error(`gpu-report: ${error.message}`);
  process.exitCode = error.exitCode ?? exitCodes.failed;
}
