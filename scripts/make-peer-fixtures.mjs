/**
 * Asks llama.cpp, an implementation that shares no code with kloop, for what tests compare with, and writes it to
 * tests/fixtures. bench/peer/README.md says how to run this.
 *
 *   node scripts/make-peer-fixtures.mjs [blocks] [families] [demo]      all three where none is named
 *
 *   blocks    ggml's own quantization of a few hundred weights      tests/fixtures/ggml-blocks.json
 *   families  greedy tokens of the tiny checkpoints                 tests/fixtures/<family>/expected-llama-cpp.json
 *   demo      greedy tokens of the bundled model                    tests/fixtures/demo-llama-cpp.json
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const fixtures = join(root, 'tests', 'fixtures');
const { openLlamaCpp } = await import('../dist/bench/llama-cpp.js');
const { writeGguf } = await import('../dist/checkpoint/gguf/writer.js');
const { openWeights } = await import('../dist/checkpoint/weights.js');
const { parseModelConfig } = await import('../dist/models/parse-config.js');

/** Highest logits kept per step. */
const topCount = 4;

const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));

function writeJson(file, value) {
  writeFileSync(file, `${JSON.stringify(value)}\n`);
  console.log(`wrote ${file}`);
}

/** Runs `use` on a float32 peer for the checkpoint in `directory`: weights, KV cache and attention all float32. */
async function withPeer(directory, quant, use) {
  const temporary = mkdtempSync(join(tmpdir(), 'kloop-fixtures-'));
  const weights = openWeights(directory);
  try {
    const config = parseModelConfig(readJson(join(directory, 'config.json')), basename(directory));
    const gguf = join(temporary, 'model.gguf');
    await writeGguf({ config, weights }, gguf, { quant });
    const options = { gguf, weights: quant, threads: 1, context: 512, cache: 'f32', flashAttention: false };
    const peer = await openLlamaCpp(options);
    try {
      return await use(peer, config);
    } finally {
      await peer.close();
    }
  } finally {
    weights.close();
    rmSync(temporary, { recursive: true });
  }
}

async function greedyCase(peer, prompt, tokens) {
  const made = await peer.greedyTop(prompt, tokens, topCount);
  const top = made.top.map((step) => step.map(([token, logit]) => [token, Number(logit.toPrecision(8))]));
  return { prompt, tokens: made.tokens, top };
}

const source = (peer, quant) =>
  `llama.cpp of node-llama-cpp 3.22.1 (release ${peer.info.release}), weights ${quant}, KV cache f32, no flash attention`;

/** llama.cpp knows sliding windows in gemma2 only; elsewhere it is right until the first token would drop out. */
function longestRun(config) {
  const windows = config.family === 'gemma2' ? [] : config.windows.filter((window) => window > 0);
  return Math.min(config.context, 64, ...windows);
}

/** The prompt of the float64 fixture where it fits, and some of other lengths. */
function prompts(directory, config, length) {
  const shared = join(directory, 'expected.json');
  const first = existsSync(shared) ? [readJson(shared).prompt] : [];
  const half = Math.floor(length / 2);
  const own = [...new Set([1, Math.min(5, half), half])].map((size) =>
    Array.from({ length: size }, (_, i) => (i * 37 + 5 * size) % config.vocab),
  );
  return [...first.filter((prompt) => prompt.length + 24 <= length), ...own];
}

async function families() {
  const entries = readdirSync(fixtures, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const directories = entries.map(({ name }) => join(fixtures, name));
  for (const directory of directories.filter((path) => existsSync(join(path, 'model.safetensors')))) {
    const expected = await withPeer(directory, 'f32', async (peer, config) => {
      const length = longestRun(config);
      const cases = [];
      for (const prompt of prompts(directory, config, length)) {
        cases.push(await greedyCase(peer, prompt, Math.min(24, length - prompt.length)));
      }
      return { source: source(peer, 'f32'), cases };
    });
    writeJson(join(directory, 'expected-llama-cpp.json'), expected);
  }
}

async function demo() {
  const { prompt_tokens: prompt } = readJson(join(fixtures, 'demo-greedy.json'));
  const expected = await withPeer(join(root, 'demo'), 'f32', async (peer) => ({
    source: source(peer, 'f32'),
    ...(await greedyCase(peer, prompt, 200)),
  }));
  writeJson(join(fixtures, 'demo-llama-cpp.json'), expected);
}

/** Inputs that meet every branch of the quantizers, and what ggml makes of them, as little-endian base64. */
async function blocks() {
  const { default: koffi } = await import('koffi');
  const platform = `${process.platform === 'darwin' ? 'mac' : process.platform}-${process.arch}`;
  const binaries = join(root, 'bench/peer/node_modules/@node-llama-cpp', platform, 'bins', platform);
  const ggml = koffi.load(join(binaries, `libggml-base.${process.platform === 'darwin' ? 'dylib' : 'so'}`));
  const base64 = (array) => Buffer.from(array.buffer).toString('base64');
  const cases = Object.entries(blockInputs()).map(([name, values]) => {
    const input = Float32Array.from(values);
    const result = { name, input: base64(input) };
    for (const [format, bytes] of Object.entries({ q8_0: 34, q4_0: 18 })) {
      const packed = new Uint8Array((input.length / 32) * bytes);
      const values = new Float32Array(input.length);
      ggml.func(`void quantize_row_${format}_ref(const float *, void *, int64_t)`)(input, packed, input.length);
      ggml.func(`void dequantize_row_${format}(const void *, float *, int64_t)`)(packed, values, input.length);
      result[format] = { packed: base64(packed), values: base64(values) };
    }
    return result;
  });
  const source = 'libggml-base of node-llama-cpp 3.22.1, quantize_row_*_ref and dequantize_row_*';
  writeJson(join(fixtures, 'ggml-blocks.json'), { source, cases });
}

function blockInputs() {
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  const block = (count, value) => Array.from({ length: 32 * count }, (_, i) => value(i));
  return {
    zeros: block(1, () => 0),
    random: block(8, random),
    'halves between steps': block(2, (i) => (i === 0 ? 127 : (i % 32) - 15.5)),
    'halves of negative scale': block(1, (i) => (i === 31 ? -16 : i - 15)),
    'equal extremes, negative first': block(1, (i) => (i % 2 === 0 ? -3 : 3)),
    'equal extremes, positive first': block(1, (i) => (i % 2 === 0 ? 3 : -3)),
    'scale below the smallest normal half': block(2, () => random() * 2e-4),
    'scale rounds to zero': block(1, () => random() * 1e-7),
    'large weights': block(2, () => random() * 1e5),
    'one outlier': block(2, (i) => (i % 32 === 17 ? 50 : random() * 0.02)),
  };
}

const parts = { blocks, families, demo };
const chosen = process.argv.slice(2);
for (const name of chosen.length > 0 ? chosen : Object.keys(parts)) {
  const part = parts[name];
  if (part === undefined) throw new Error(`unknown part ${name}: ${Object.keys(parts).join(', ')}`);
  await part();
}
