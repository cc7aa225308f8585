/** Broken GGUF files, thousands of them: each is opened as a model, or ends in one of our errors. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { openCheckpoint } from '../../src/checkpoint/directory.js';
import { writeGguf } from '../../src/checkpoint/gguf/writer.js';
import { createTokenizer } from '../../src/text/tokenizer.js';
import { KloopError } from '../../src/util/errors.js';
import { byteLevelJson, pieceJson } from '../text/tiny-tokenizers.js';
import { mutated } from './gguf-bytes.js';
import { modelConfig, Workspace } from './models.js';

export interface FuzzCounts {
  /** Files that are still a model, and files that were refused. */
  opened: number;
  refused: number;
}

/** @throws the first error that is not ours, with the bytes that lead to it */
export async function fuzzGguf(runs: number, seed: number): Promise<FuzzCounts> {
  const workspace = new Workspace();
  const directory = mkdtempSync(join(tmpdir(), 'kloop-fuzz-'));
  const counts: FuzzCounts = { opened: 0, refused: 0 };
  try {
    for (const [name, json] of [
      ['llama', pieceJson()],
      ['qwen2', byteLevelJson()],
    ] as const) {
      const original = join(directory, `${name}.gguf`);
      const config = modelConfig(name, 'f32', { num_hidden_layers: 1, vocab_size: 300 });
      const weights = await workspace.weights(config);
      const tokenizer = { tokenizerFile: 'tokenizer.json', tokenizerJson: json };
      await writeGguf({ config, weights, ...tokenizer, generation: { bos: 1, eos: [2] } }, original, { quant: 'q8_0' });
      const bytes = readFileSync(original);
      const file = join(directory, 'broken.gguf');
      const property = fc.property(mutated(bytes, headerBytes(bytes)), (broken) => {
        writeFileSync(file, broken);
        counts[opens(file) ? 'opened' : 'refused'] += 1;
      });
      fc.assert(property, { numRuns: Math.ceil(runs / 2), seed });
    }
    return counts;
  } finally {
    workspace.remove();
    rmSync(directory, { recursive: true });
  }
}

/** Up to the name of the last tensor, and a little more. */
function headerBytes(bytes: Buffer): number {
  return Math.min(bytes.length, bytes.lastIndexOf('token_embd.weight') + 4096);
}

function opens(file: string): boolean {
  try {
    const { weights, tokenizerFile, tokenizerJson, tokenizerConfig } = openCheckpoint(file);
    try {
      for (const name of weights.names()) weights.readF32(name, 0, 1);
      createTokenizer(tokenizerFile, tokenizerJson, tokenizerConfig).encode('hello world', { addSpecial: true });
      return true;
    } finally {
      weights.close();
    }
  } catch (error) {
    if (error instanceof KloopError) return false;
    throw error;
  }
}
