/**
 * GGUF metadata as a ModelConfig: the way back of metadata.ts. What llama.cpp fixes per architecture and the file does not
 * say is filled in here; what it says and kloop does not compile is refused by name. Every number is bounded, as those of a
 * config.json are.
 */
import type { Family, ModelConfig, RopeConfig, RopeScaling } from '../../models/model-config.js';
import { checkedProduct, show } from '../../util/checked.js';
import { CheckpointError, UnsupportedModelError } from '../../util/errors.js';
import type { MetadataValue } from './header-reader.js';
import type { GgufFile } from './parse.js';

const architectures: readonly Family[] = ['llama', 'qwen2', 'qwen3', 'gemma2'];

/** The model in the file; `divisors` is its tensor `rope_freqs.weight`, where it has one. */
export function readModelConfig(file: GgufFile, name: string, divisors?: Float32Array): ModelConfig {
  const family = readArchitecture(file);
  const read = new ConfigReader(file, family);
  const [layers, hidden, heads] = [
    read.whole('block_count', 1, 1000),
    read.whole('embedding_length', 1, 131_072),
    read.whole('attention.head_count', 1, 1024),
  ];
  const kvHeads = read.whole('attention.head_count_kv', 1, 1024, heads);
  if (heads % kvHeads !== 0) throw read.fail(`${heads} heads are not a multiple of ${kvHeads} key/value heads`);
  const headDim = read.whole('attention.key_length', 2, 1024, hidden / heads);
  if (headDim % 2 !== 0) throw read.fail(`heads of ${headDim} (${hidden} / ${heads}) cannot be rotated, must be even`);
  read.refuseUnless('attention.value_length', headDim, 'values of another size than keys');
  read.refuseUnless('rope.dimension_count', headDim, 'partial rotary embeddings');
  read.refuseUnless('expert_count', 0, 'mixture of experts');
  const context = read.whole('context_length', 1, 16_777_216);
  if (checkedProduct([8, layers, context, kvHeads, headDim]) === undefined) {
    throw read.fail(`the key-value cache of ${layers} layers and ${context} positions is too large to address`);
  }
  const tensors = file.tensors;
  const vocab = tensors.get('token_embd.weight')?.shape[0];
  if (vocab === undefined) throw read.fail('tensor "token_embd.weight" is missing');
  if (vocab > 4_000_000) throw read.fail(`a vocabulary of ${vocab} is too large`);
  return {
    ...{ name, family, layers, hidden, heads, kvHeads, headDim, vocab, context },
    ffn: read.whole('feed_forward_length', 1, 1_048_576),
    normEps: read.positive('attention.layer_norm_rms_epsilon', 0.1),
    rope: readRope(read, headDim, divisors),
    tied: !tensors.has('output.weight'),
    qkvBias: family === 'qwen2',
    qkNorm: family === 'qwen3',
    // The file's norms are w, whatever the family stores elsewhere.
    normOffset: 0,
    dtype: 'f32',
    ...(family === 'gemma2'
      ? gemma2Fields(read, { layers, hidden, heads, headDim })
      : llamaFields(read, layers, headDim)),
  };
}

function readArchitecture({ path, metadata }: GgufFile): Family {
  const name = metadata.get('general.architecture');
  if (typeof name !== 'string') throw new CheckpointError(path, 'metadata "general.architecture" is missing');
  const splits = metadata.get('split.count');
  if (typeof splits === 'number' && splits > 1) {
    throw new UnsupportedModelError(`${path}: is one of ${splits} parts of a model, which are not read`, {
      hint: 'merge them with `llama-gguf-split --merge`',
    });
  }
  const family = architectures.find((known) => known === name);
  if (family !== undefined) return family;
  throw new UnsupportedModelError(`${path}: architecture ${show(name)} is not supported`, {
    hint: `known are ${architectures.join(', ')}`,
  });
}

type Shape = Pick<ModelConfig, 'layers' | 'hidden' | 'heads' | 'headDim'>;
type FamilyFields = Pick<
  ModelConfig,
  'postNorms' | 'activation' | 'embeddingScale' | 'attentionScale' | 'attentionSoftcap' | 'logitSoftcap' | 'windows'
>;

function llamaFields(read: ConfigReader, layers: number, headDim: number): FamilyFields {
  return {
    postNorms: false,
    activation: 'silu',
    embeddingScale: 1,
    attentionScale: read.positive('attention.scale', 1e6, 1 / Math.sqrt(headDim)),
    attentionSoftcap: 0,
    logitSoftcap: 0,
    windows: new Array<number>(layers).fill(0),
  };
}

function gemma2Fields(read: ConfigReader, { layers, hidden, heads, headDim }: Shape): FamilyFields {
  const window = read.whole('attention.sliding_window', 1, 16_777_216, 4096);
  return {
    postNorms: true,
    activation: 'gelu',
    embeddingScale: Math.sqrt(hidden),
    // As llama.cpp does: the 27B model, known by its 46 layers, has another scale.
    attentionScale: 1 / Math.sqrt(layers === 46 ? hidden / heads : headDim),
    attentionSoftcap: read.positive('attn_logit_softcapping', 1e6, 50),
    logitSoftcap: read.positive('final_logit_softcapping', 1e6, 30),
    windows: Array.from({ length: layers }, (_, layer) => (layer % 2 === 0 ? window : 0)),
  };
}

function readRope(read: ConfigReader, headDim: number, divisors: Float32Array | undefined): RopeConfig {
  const theta = read.positive('rope.freq_base', Number.MAX_VALUE, 10_000);
  // Older files have a factor alone: of linear scaling, as llama.cpp takes it.
  const kind = read.text('rope.scaling.type') ?? 'linear';
  const factor = read.positive('rope.scaling.factor', 1e6, read.positive('rope.scale_linear', 1e6, 1));
  const scaling = scalingOf(read, kind, factor);
  if (divisors !== undefined) {
    if (divisors.length !== headDim / 2) {
      throw read.fail(`tensor "rope_freqs.weight" has ${divisors.length} factors for ${headDim / 2} frequencies`);
    }
    const broken = divisors.find((value) => !(value > 0 && value < 1e6));
    if (broken !== undefined) throw read.fail(`tensor "rope_freqs.weight" holds ${broken}, must be positive`);
    if (scaling.kind !== 'none') throw read.unsupported('linear rope scaling together with "rope_freqs.weight"');
    return { theta, scaling: { kind: 'divisors', values: [...divisors] } };
  }
  return { theta, scaling };
}

function scalingOf(read: ConfigReader, kind: string, factor: number): RopeScaling {
  if (kind === 'none' || (kind === 'linear' && factor === 1)) return { kind: 'none' };
  if (kind === 'linear') return { kind: 'linear', factor };
  throw read.unsupported(`rope scaling ${show(kind)}`);
}

/** Typed access to the keys of one architecture, with ranges. */
class ConfigReader {
  constructor(
    private readonly file: GgufFile,
    private readonly prefix: string,
  ) {}

  fail(message: string): CheckpointError {
    return new CheckpointError(this.file.path, message);
  }

  unsupported(feature: string): UnsupportedModelError {
    return new UnsupportedModelError(`${this.file.path}: ${feature} is not supported`);
  }

  whole(key: string, min: number, max: number, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
    throw this.invalid(key, value, `a whole number from ${min} to ${max}`);
  }

  positive(key: string, max: number, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (typeof value === 'number' && value > 0 && value <= max) return value;
    throw this.invalid(key, value, `a number above 0${max < Number.MAX_VALUE ? ` and up to ${max}` : ''}`);
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === 'string') return value;
    throw this.invalid(key, value, 'a string');
  }

  /** What a key would change where it is not `expected`. */
  refuseUnless(key: string, expected: number, feature: string): void {
    const value = this.get(key);
    if (value === undefined || value === expected) return;
    throw this.unsupported(`${feature} (${this.prefix}.${key} ${showValue(value)})`);
  }

  /** Keys that may differ per layer are arrays in some files; equal elements are one value. */
  private get(key: string): MetadataValue | undefined {
    const value = this.file.metadata.get(`${this.prefix}.${key}`);
    if (!(value instanceof Uint32Array || value instanceof Int32Array)) return value;
    const [first] = value;
    if (first !== undefined && value.every((element: number) => element === first)) return first;
    throw this.unsupported(`${this.prefix}.${key} that differs from layer to layer`);
  }

  private invalid(key: string, value: MetadataValue | undefined, allowed: string): CheckpointError {
    const found = value === undefined ? 'is missing' : `is ${showValue(value)}`;
    return this.fail(`metadata "${this.prefix}.${key}" ${found}, must be ${allowed}`);
  }
}

function showValue(value: MetadataValue): string {
  return typeof value === 'object'
    ? `an array of ${value.length}`
    : show(typeof value === 'bigint' ? String(value) : value);
}
