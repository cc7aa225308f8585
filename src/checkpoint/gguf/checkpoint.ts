/** A GGUF file as a checkpoint: one file that holds configuration, tokenizer and weights. */
import { basename, extname } from 'node:path';
import type { ModelConfig } from '../../models/model-config.js';
import { expectedTensors } from '../../models/tensors.js';
import { show } from '../../util/checked.js';
import { CheckpointError } from '../../util/errors.js';
import { checkTensors } from '../check-tensors.js';
import type { Checkpoint } from '../checkpoint.js';
import type { StoredDtype, Weights } from '../weights.js';
import { widen } from '../weights.js';
import type { GgufFile } from './parse.js';
import { openGguf } from './parse.js';
import { readModelConfig } from './read-config.js';
import { readTokenizer } from './read-tokenizer.js';
import { ggufNames, ggufWeights, ropeTensor } from './read-weights.js';

/** Opens a file; the caller closes `weights`. Throws CheckpointError or UnsupportedModelError. */
export function openGgufCheckpoint(path: string, name = basename(path, extname(path))): Checkpoint {
  const file = openGguf(path);
  try {
    const config = readModelConfig(file, name, readDivisors(file));
    const weights = ggufWeights(file, config);
    checkTensors(weights, config, 'the metadata', ggufNames(config));
    const tokenizer = readTokenizer(file);
    const format = mainFormat(weights, config);
    return {
      path,
      config: { ...config, dtype: format === 'f16' || format === 'bf16' ? format : 'f32' },
      generation: tokenizer.generation,
      weights,
      format,
      formatOf: (tensor) => weights.describe(tensor).dtype,
      tokenizerFile: path,
      tokenizerJson: tokenizer.json,
      tokenizerConfig: tokenizer.config,
      ...(tokenizer.chatTemplate === undefined ? {} : { chatTemplate: tokenizer.chatTemplate }),
      ...(tokenizer.toolTemplate === undefined ? {} : { toolTemplate: tokenizer.toolTemplate }),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** The longest head is 1024; a longer tensor is refused before it is read. */
const maxDivisorBytes = 512 * 4;

function readDivisors(file: GgufFile): Float32Array | undefined {
  const tensor = file.tensors.get(ropeTensor);
  if (tensor === undefined) return undefined;
  if (tensor.dtype !== 'f32' || tensor.shape.length !== 1 || tensor.bytes > maxDivisorBytes) {
    throw new CheckpointError(file.path, `tensor ${show(ropeTensor)} is no list of float32 numbers for a head`);
  }
  const bytes = new Uint8Array(tensor.bytes);
  file.readInto(bytes, tensor.offset);
  return widen(bytes, tensor.dtype);
}

/** The format that most of the bytes of matrices have. */
function mainFormat(weights: Weights, config: ModelConfig): StoredDtype {
  const elements = new Map<StoredDtype, number>();
  for (const { name, shape } of expectedTensors(config)) {
    if (shape.length < 2) continue;
    const { dtype } = weights.describe(name);
    elements.set(dtype, (elements.get(dtype) ?? 0) + shape.reduce((product, size) => product * size, 1));
  }
  return [...elements].reduce((most, entry) => (entry[1] > most[1] ? entry : most))[0];
}
