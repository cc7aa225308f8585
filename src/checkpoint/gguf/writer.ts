/**
 * Writes a checkpoint as a GGUF file, so that other engines can run the same weights: same numbers where the format
 * keeps them, ggml's own rounding where it does not. Tensors pass through in pieces of a few megabytes, and the file
 * appears under its name only when it is complete.
 */
import type { FileHandle } from 'node:fs/promises';
import type { ModelConfig } from '../../models/model-config.js';
import { assert } from '../../util/assert.js';
import { AbortedError } from '../../util/errors.js';
import { writeFileAtomic } from '../../util/files.js';
import { encodeWeights } from '../encode.js';
import { firstNonFinite, nonFiniteError } from '../finite.js';
import type { GenerationDefaults } from '../generation.js';
import type { Weights } from '../weights.js';
import type { GgufFormat, GgufTensorInfo } from './format.js';
import { aligned, encodeHeader, ggufFormats } from './format.js';
import { modelMetadata, ropeDivisors } from './metadata.js';
import type { GgufTensorPlan } from './tensors.js';
import { planTensors } from './tensors.js';
import { placeholderVocabulary, vocabularyMetadata } from './vocabulary.js';

/** What is written; a Checkpoint is one. */
export interface GgufSource {
  readonly config: ModelConfig;
  readonly weights: Weights;
  /** Path of tokenizer.json; without one, the file gets a vocabulary without meaning. */
  readonly tokenizerFile?: string;
  /** The content of tokenizer.json, where it is not a file of its own. */
  readonly tokenizerJson?: object;
  readonly generation?: Pick<GenerationDefaults, 'bos' | 'eos'>;
  readonly chatTemplate?: string;
  readonly toolTemplate?: string;
}

export interface WriteGgufOptions {
  /** Format of the matrices. Norms and biases are f32; rows that are no whole blocks stay f16. */
  readonly quant: GgufFormat;
  /** Called with bytes of tensor data written so far, and in all. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Elements that pass at once, about. */
const chunkElements = 1 << 21;

/**
 * Writes `file`. Throws CheckpointError (missing or non-finite tensors, a broken tokenizer), UnsupportedModelError (what
 * llama.cpp computes otherwise), StorageError (the file cannot be written), AbortedError.
 */
export async function writeGguf(source: GgufSource, file: string, options: WriteGgufOptions): Promise<void> {
  const { config, weights, generation } = source;
  const plans = planTensors(config, options.quant);
  const divisors = ropeDivisors(config);
  const { infos, total } = layOut(plans, divisors);
  const vocabulary =
    source.tokenizerFile === undefined
      ? placeholderVocabulary(config.vocab)
      : vocabularyMetadata(source.tokenizerFile, {
          vocab: config.vocab,
          bos: generation?.bos,
          eos: generation?.eos[0],
          chatTemplate: source.chatTemplate,
          toolTemplate: source.toolTemplate,
          json: source.tokenizerJson,
        });
  const header = encodeHeader([...modelMetadata(config, options.quant), ...vocabulary], infos);
  await writeFileAtomic(file, async (handle) => {
    const output = new AlignedOutput(handle, (done) => {
      if (options.signal?.aborted === true) throw new AbortedError('writing the GGUF file was stopped');
      options.onProgress?.(done, total);
    });
    await output.start(header);
    if (divisors !== undefined) await output.tensor([encodeWeights(divisors, 'f32')]);
    for (const plan of plans) await output.tensor(encodedChunks(weights, plan));
    assert(output.written === total, `${output.written} bytes of tensors, planned ${total}`);
  });
}

function layOut(
  plans: readonly GgufTensorPlan[],
  divisors: Float32Array | undefined,
): { infos: GgufTensorInfo[]; total: number } {
  const infos: GgufTensorInfo[] = [];
  let total = 0;
  const place = (name: string, shape: readonly number[], format: GgufFormat): void => {
    const { blockElements, blockBytes } = ggufFormats[format];
    const elements = shape.reduce((product, size) => product * size, 1);
    infos.push({ name, shape, format, offset: total });
    total += aligned((elements / blockElements) * blockBytes);
  };
  if (divisors !== undefined) place('rope_freqs.weight', [divisors.length], 'f32');
  for (const { name, shape, format } of plans) place(name, shape, format);
  return { infos, total };
}

/** The tensor's bytes in the file, a few megabytes at a time. */
function* encodedChunks(weights: Weights, plan: GgufTensorPlan): Generator<Uint8Array> {
  const rows = plan.shape[0] ?? 1;
  const width = plan.shape[1] ?? 1;
  const stored = weights.describe(plan.source).dtype;
  const asStored = stored === plan.format && plan.scale === 1 && plan.offset === 0;
  const unit = plan.interleaveHeads === 0 ? 1 : plan.interleaveHeads;
  const step = unit * Math.max(1, Math.floor(chunkElements / (unit * width)));
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row);
    const raw = weights.read(plan.source, row, count);
    const broken = firstNonFinite(raw, stored);
    if (broken >= 0) throw nonFiniteError(weights, plan.source, row * width + broken);
    const bytes = asStored ? raw : encodeWeights(transform(weights.readF32(plan.source, row, count), plan), 'f32');
    const ordered = plan.interleaveHeads === 0 ? bytes : interleave(bytes, count, plan.interleaveHeads);
    yield asStored ? ordered : encodeWeights(floatsOf(ordered), plan.format);
  }
}

function transform(values: Float32Array, { scale, offset }: GgufTensorPlan): Float32Array {
  if (scale === 1 && offset === 0) return values;
  return values.map((value) => scale * value + offset);
}

/** Rows of every head from halves to pairs: row 2i + half comes from row half * headDim/2 + i. */
function interleave(bytes: Uint8Array, rows: number, headDim: number): Uint8Array {
  const rowBytes = bytes.length / rows;
  const result = new Uint8Array(bytes.length);
  for (let row = 0; row < rows; row += 1) {
    const within = row % headDim;
    const from = row - within + (within % 2) * (headDim / 2) + Math.floor(within / 2);
    result.set(bytes.subarray(from * rowBytes, (from + 1) * rowBytes), row * rowBytes);
  }
  return result;
}

function floatsOf(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** Appends to a file, every tensor padded to the alignment. */
class AlignedOutput {
  /** Bytes of tensor data, padding included. */
  written = 0;

  constructor(
    private readonly file: FileHandle,
    private readonly onProgress: (done: number) => void,
  ) {}

  async start(header: Uint8Array): Promise<void> {
    await this.append(header);
    this.written = 0;
  }

  async tensor(chunks: Iterable<Uint8Array>): Promise<void> {
    for (const chunk of chunks) {
      await this.append(chunk);
      this.onProgress(this.written);
    }
    await this.append(new Uint8Array(aligned(this.written) - this.written));
  }

  private async append(bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.length) done += (await this.file.write(bytes, done)).bytesWritten;
    this.written += bytes.length;
  }
}
