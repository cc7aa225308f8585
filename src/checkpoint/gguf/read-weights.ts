/**
 * The tensors of a GGUF file under their Hugging Face names: the way back of tensors.ts. Rows keep the format they have in
 * the file. Q and K rows of `llama` files, which lie in pairs, are read in the order of checkpoints, in halves.
 */
import { blockOf } from '../../ir/formats.js';
import type { ModelConfig } from '../../models/model-config.js';
import { assert, defined } from '../../util/assert.js';
import { show } from '../../util/checked.js';
import { CheckpointError, UnsupportedModelError } from '../../util/errors.js';
import type { Weights } from '../weights.js';
import { fingerprintOf, widen } from '../weights.js';
import type { GgufFile, GgufTensor } from './parse.js';
import { planTensors } from './tensors.js';

/** Tensor of frequency divisors: a part of the configuration. */
export const ropeTensor = 'rope_freqs.weight';

interface Source {
  readonly tensor: GgufTensor;
  /** Width of the heads whose rows lie in pairs, or 0. */
  readonly headDim: number;
}

/**
 * The weights of this model. Tensors that the model has no place for are refused, since leaving one out would compute
 * something else; missing ones are for checkTensors. `weights.close` closes the file.
 */
export function ggufWeights(file: GgufFile, config: ModelConfig): Weights {
  const sources = new Map<string, Source>();
  const known = new Set([ropeTensor]);
  for (const { name, source, interleaveHeads } of planTensors(config, 'f32')) {
    known.add(name);
    const tensor = file.tensors.get(name);
    if (tensor !== undefined) sources.set(source, { tensor, headDim: interleaveHeads });
  }
  const foreign = [...file.tensors.keys()].find((name) => !known.has(name));
  if (foreign !== undefined) {
    throw new UnsupportedModelError(`${file.path}: tensor ${show(foreign)} has no place in a ${config.family} model`, {
      hint: 'the model is a variant that is not supported',
    });
  }
  const locate = (name: string): Source => {
    const source = sources.get(name);
    if (source === undefined) throw new CheckpointError(file.path, `tensor ${show(name)} is missing`);
    return source;
  };
  const read = (name: string, firstRow: number, rows: number): Uint8Array =>
    readRows(file, locate(name), firstRow, rows);
  return {
    path: file.path,
    has: (name) => sources.has(name),
    describe: (name) => {
      const { dtype, shape } = locate(name).tensor;
      return { name, dtype, shape };
    },
    read,
    readF32: (name, firstRow, rows) => widen(read(name, firstRow, rows), locate(name).tensor.dtype),
    names: () => sources.keys(),
    fingerprint: fingerprintOf([file]),
    close: () => file.close(),
  };
}

/** The name in the file of a tensor, for messages. */
export function ggufNames(config: ModelConfig): (name: string) => string {
  const names = new Map(planTensors(config, 'f32').map(({ name, source }) => [source, name]));
  return (name) => names.get(name) ?? name;
}

function readRows(file: GgufFile, { tensor, headDim }: Source, firstRow: number, rows: number): Uint8Array {
  const { shape, bytes, offset } = tensor;
  const total = defined(shape[0], 'a leading dimension');
  assert(
    Number.isInteger(firstRow) && Number.isInteger(rows) && firstRow >= 0 && rows >= 0 && firstRow + rows <= total,
    `rows ${firstRow}+${rows} of ${total}`,
  );
  if (shape.length === 1) assert(firstRow % blockOf(tensor.dtype).elements === 0, 'vectors are read in whole blocks');
  const rowBytes = bytes / total;
  const target = new Uint8Array(rows * rowBytes);
  if (headDim === 0) {
    file.readInto(target, offset + firstRow * rowBytes);
    return target;
  }
  // The heads that these rows are in, whole.
  const begin = firstRow - (firstRow % headDim);
  const end = Math.min(total, Math.ceil((firstRow + rows) / headDim) * headDim);
  const heads = new Uint8Array((end - begin) * rowBytes);
  file.readInto(heads, offset + begin * rowBytes);
  for (let i = 0; i < rows; i += 1) {
    const from = pairedRow(firstRow + i, headDim) - begin;
    target.set(heads.subarray(from * rowBytes, (from + 1) * rowBytes), i * rowBytes);
  }
  return target;
}

/** Where a row of a checkpoint is in the file: row i of a head is first of pair i, row i + headDim/2 is second. */
function pairedRow(row: number, headDim: number): number {
  const within = row % headDim;
  const half = headDim / 2;
  return row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}
