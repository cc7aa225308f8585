/**
 * bf16 weights that are kept in fewer bytes: what a model computes is the same, bit for bit, as with the weights as they are,
 * under every schedule and number of threads. A matrix that does not fit stays as it is.
 */
import { afterAll, describe, expect, test } from 'vitest';
import type { Backend } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/cpu/index.js';
import { findCompiler } from '../src/backends/cpu/toolchain.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { openCheckpoint } from '../src/checkpoint/directory.js';
import { resolveModel } from '../src/checkpoint/resolve.js';
import type { Weights } from '../src/checkpoint/weights.js';
import type { Schedule } from '../src/ir/program.js';
import { compileModel } from '../src/passes/pipeline.js';
import { chooseFormats, compressed, type Formats } from '../src/runtime/formats.js';
import { smallLimits, Workspace } from './support/models.js';
import { createQuickCpuBackend } from './support/quick-cpu.js';
import { generate, logitsOfAll, promptOf } from './support/steps.js';

const hasCompiler = (await findCompiler()) !== undefined;
const [quick, usual] = [createQuickCpuBackend(), createCpuBackend()];
const workspace = new Workspace();
afterAll(() => workspace.remove());
const { cacheDir } = workspace;
const limits = { ...smallLimits, samples: smallLimits.rows };

interface Setting {
  readonly schedule: Schedule;
  readonly threads: number;
  readonly backend?: Backend;
}

/** Logits of a text fed in chunks of three rows and one by one, and tokens made in one request. */
async function results(
  { config, weights }: Checkpoint,
  { quant, formatOf, kv }: Formats,
  { schedule, threads, backend = quick }: Setting,
) {
  const { plan } = compileModel(config, {
    ...{ schedule, limits, workers: threads, responseTokens: 3, capabilities: backend.capabilities },
    ...{ weightFormat: quant, stateFormat: kv },
    ...(formatOf === undefined ? {} : { formatOf }),
  });
  const executable = await backend.prepare(plan, weights, { cacheDir, threads });
  try {
    const prompt = promptOf(7, config.vocab);
    const logits = [...(await logitsOfAll(executable, prompt, 3)), ...(await logitsOfAll(executable, prompt, 1, 1))];
    const { tokens } = await generate(executable, { prompt, slot: 2 }, 7);
    return { logits, tokens: tokens[0]! };
  } finally {
    await executable.close();
  }
}

/** The demo, which is a trained model. @param odd one of whose tensors is replaced by any finite numbers */
function demo(odd?: string): Checkpoint {
  const checkpoint = openCheckpoint(resolveModel('demo'));
  if (odd === undefined) return checkpoint;
  const read: Weights['read'] = (name, first, count) => {
    const bytes = checkpoint.weights.read(name, first, count);
    if (name !== odd) return bytes;
    const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
    // From a millionth to one, every size as often as any other.
    bits.forEach((_, i) => (bits[i] = 0x3580 + ((i * 40503) % 0xa00)));
    return bytes;
  };
  return { ...checkpoint, weights: { ...checkpoint.weights, read, fingerprint: `demo with another ${odd}` } };
}

async function formatsOf(checkpoint: Checkpoint): Promise<readonly [plain: Formats, compressed: Formats]> {
  const plain = chooseFormats(checkpoint, quick, {}, () => undefined);
  return [plain, await compressed(plain, checkpoint, quick, { cacheDir })];
}

describe.runIf(hasCompiler)('weights of bf16 in fewer bytes', () => {
  test('compute the same under every schedule and number of threads', async () => {
    const checkpoint = demo();
    const [plain, fewer] = await formatsOf(checkpoint);
    expect(fewer.formatOf?.('model.embed_tokens.weight')).toBe('bf16z');
    const expected = await results(checkpoint, plain, { schedule: 'response', threads: 1 });
    for (const setting of [
      { schedule: 'operator', threads: 2 },
      { schedule: 'layer', threads: 3 },
      { schedule: 'looped', threads: 1 },
      { schedule: 'response', threads: 2, backend: usual },
    ] as const) {
      const one = await results(checkpoint, fewer, { ...setting, threads: 1 });
      expect(one, setting.schedule).toEqual(expected);
      expect(await results(checkpoint, fewer, setting), `${setting.threads} threads`).toEqual(expected);
    }
    checkpoint.weights.close();
  });

  test('stay as they are where they do not fit', async () => {
    const checkpoint = demo('model.layers.1.mlp.down_proj.weight');
    const [plain, fewer] = await formatsOf(checkpoint);
    expect(fewer.formatOf?.('model.layers.0.mlp.down_proj.weight')).toBe('bf16');
    expect(fewer.formatOf?.('model.layers.1.mlp.up_proj.weight')).toBe('bf16z');
    const setting = { schedule: 'response', threads: 2 } as const;
    expect(await results(checkpoint, fewer, setting)).toEqual(await results(checkpoint, plain, setting));
    checkpoint.weights.close();
  });

  test('are chosen for bf16 only, and where the backend reads it', async () => {
    const checkpoint = demo();
    const choose = async (quant: 'f32' | 'q8_0' | 'bf16', readsCompressed: boolean): Promise<string> => {
      const backend = { ...quick, capabilities: { ...quick.capabilities, readsCompressed } };
      const plain = chooseFormats(checkpoint, backend, { quant }, () => undefined);
      const { formatOf } = await compressed(plain, checkpoint, backend, { cacheDir });
      return formatOf?.('model.layers.0.mlp.up_proj.weight') ?? quant;
    };
    expect(await choose('bf16', true)).toBe('bf16z');
    expect(await choose('bf16', false)).toBe('bf16');
    expect(await choose('f32', true)).toBe('f32');
    expect(await choose('q8_0', true)).toBe('q8_0');
    checkpoint.weights.close();
  });
});
