/**
 * What calibration times: small models that are no benchmark's, in pairs that differ in one thing only, so that a
 * difference of two times is the cost of that thing.
 */
import type { DType, Schedule } from '../../ir/program.js';
import { blockOf } from '../../ir/formats.js';
import type { ModelConfig } from '../../models/model-config.js';
import { parseModelConfig } from '../../models/parse-config.js';
import { assert, defined } from '../../util/assert.js';

export interface Case {
  readonly config: ModelConfig;
  readonly quant: DType;
  readonly schedule: Schedule;
  readonly threads: number;
  /** Made in one measurement, after `depth` ones. */
  readonly tokens: number;
}

/** The same with few and with many layers. */
export interface Pair {
  readonly few: Case;
  readonly many: Case;
}

export interface Cases {
  /** Layers so narrow that they are nothing but their operators, by one thread: what operators cost. */
  readonly alone: Pair;
  /** Layers that threads have to share, by all of them: what the hand-off between stages costs. */
  readonly together: Pair;
  /** `together.many` with a call for every operator: what a call costs. */
  readonly calls: Case;
  /** `together.many` with one call for all tokens: what the host costs. */
  readonly response: Case;
  /** Layers of weights that the last-level cache holds: how fast a format is worked on. */
  readonly formats: ReadonlyMap<DType, Pair>;
  /** More and more weights, of which caches hold less and less: how fast a model of this size arrives. In order. */
  readonly streamed: readonly Case[];
  /** The largest of them, by format, of which a byte takes more or less arithmetic: what loading and arithmetic hide of each other. */
  readonly overlapped: ReadonlyMap<OverlapFormat, Case>;
  /** By the format of weights: layers of growing width whose prompts are timed, in order. */
  readonly prompts: ReadonlyMap<PromptFormat, readonly Pair[]>;
}

/** Of which matrices are multiplied with many rows in ways that differ: numbers of 8 and of 4 bits, numbers with an exponent. */
const promptFormats = ['q8_0', 'q4_0', 'bf16'] as const satisfies readonly DType[];
export type PromptFormat = (typeof promptFormats)[number];

/** Of which loading and arithmetic hide more or less of each other; the first stands for all others. */
const overlapFormats = ['q8_0', 'q4_0'] as const satisfies readonly DType[];
export type OverlapFormat = (typeof overlapFormats)[number];

/** Formats that `--quant` knows, and what bf16 is kept in; those of a block within a GGUF file are worked on as on-chip memory reads. */
export const calibratedFormats = ['q8_0', 'q4_0', 'bf16z', 'bf16', 'f16', 'f32'] as const satisfies readonly DType[];

/** Positions of the cache, and tokens before those that are timed. */
export const context = 256;
export const depth = 8;
/** Of a prompt that is timed: one step. */
export const promptTokens = 64;
const manyTokens = 240;
const fewTokens = 32;

/** Of 13.7 MB each: from a size that large caches hold to one that none does, in even steps of the logarithm. */
const streamedLayers = [2, 6, 20];

/** @param cacheBytes of all last-level caches together */
export function calibrationCases(threads: number, cacheBytes: number, formats: readonly DType[]): Cases {
  const of = (name: string, sizes: Sizes, others: Partial<Case>) => (layers: number) => ({
    config: shape(`${name}-${layers}`, { layers, ...sizes }),
    ...({ quant: 'q8_0', schedule: 'looped', threads, tokens: manyTokens } as const),
    ...others,
  });
  const narrow = of('narrow', { hidden: 64, ffn: 64, heads: 2, headDim: 32 }, { threads: 1 });
  const medium = (others: Partial<Case>): ((layers: number) => Case) =>
    of('medium', { hidden: 256, ffn: 512, heads: 8, headDim: 32 }, others);
  const streamed = streamedLayers.map(
    of('streamed', { hidden: 1024, ffn: 2816, heads: 16, headDim: 64 }, { tokens: fewTokens }),
  );
  const last = defined(streamed.at(-1), 'streamed models');
  const together = { few: medium({})(4), many: medium({})(20) };
  const wide = new Map(formats.map((quant) => [quant, widePair(quant, threads, cacheBytes)]));
  const promptPairs = (quant: PromptFormat): Pair[] => {
    const pair = wide.get(quant) ?? widePair(quant, threads, cacheBytes);
    const [few, many] = streamed.map((one) => inFormat(one, quant));
    return [
      { few: inFormat(together.few, quant), many: inFormat(together.many, quant) },
      pair,
      { few: defined(few, 'streamed'), many: defined(many, 'streamed') },
    ];
  };
  return {
    alone: { few: narrow(4), many: narrow(36) },
    together,
    calls: medium({ schedule: 'operator' })(20),
    response: medium({ schedule: 'response' })(20),
    formats: wide,
    streamed,
    overlapped: new Map(
      overlapFormats
        .filter((quant) => quant === 'q8_0' || formats.includes(quant))
        .map((quant) => [quant, inFormat(last, quant)]),
    ),
    prompts: new Map(
      promptFormats.filter((quant) => quant === 'q8_0' || wide.has(quant)).map((quant) => [quant, promptPairs(quant)]),
    ),
  };
}

/** Cases that are equal are one object. */
function inFormat(one: Case, quant: DType): Case {
  return one.quant === quant ? one : { ...one, quant };
}

const wideSizes = { hidden: 512, ffn: 1024, heads: 8, headDim: 64 };

/** Half of the cache at most, so that a neighbour who shares it does not matter much. */
function widePair(quant: DType, threads: number, cacheBytes: number): Pair {
  const { elements, bytes } = blockOf(quant);
  const layerBytes = (layerElements(wideSizes) / elements) * bytes;
  const most = Math.max(3, Math.min(12, Math.floor(cacheBytes / 2 / layerBytes)));
  const of = (layers: number): Case => ({
    config: shape(`wide-${layers}`, { layers, ...wideSizes }),
    quant,
    schedule: 'looped',
    threads,
    tokens: manyTokens,
  });
  return { few: of(1), many: of(most) };
}

interface Sizes {
  readonly hidden: number;
  readonly ffn: number;
  readonly heads: number;
  readonly headDim: number;
}

const matricesPerLayer = 7;

/** Elements of the matrices of a layer, with a key/value head for every head. */
function layerElements({ hidden, ffn }: Pick<Sizes, 'hidden' | 'ffn'>): number {
  return 4 * hidden * hidden + 3 * hidden * ffn;
}

function shape(
  name: string,
  { layers, hidden, ffn, heads, headDim }: Sizes & { readonly layers: number },
): ModelConfig {
  assert(heads * headDim === hidden, 'heads of a calibration model');
  const json = {
    architectures: ['LlamaForCausalLM'],
    num_hidden_layers: layers,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    vocab_size: 512,
    max_position_embeddings: context,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    torch_dtype: 'bfloat16',
  };
  return parseModelConfig(json, name);
}

/** Whose prompts are timed. */
export function promptCases({ prompts }: Cases): Case[] {
  return [...prompts.values()].flat().flatMap(({ few, many }) => [few, many]);
}

/** Elements of a matrix of its layers, on average. */
export function matrixElements({ many: { config } }: Pair): number {
  return layerElements(config) / matricesPerLayer;
}

/** Whose time depends on what memory gives at the moment. */
export function memoryCases({ streamed, overlapped }: Cases): Case[] {
  return [...new Set([...streamed, ...overlapped.values()])];
}

/** Every case once whose tokens are timed: those that are equal are one object. */
export function tokenCases(cases: Cases): Case[] {
  const { alone, together, calls, response, formats } = cases;
  const pairs = [alone, together, ...formats.values()];
  return [...pairs.flatMap(({ few, many }) => [few, many]), calls, response, ...memoryCases(cases)];
}

/** Every case once. */
export function allCases(cases: Cases): Case[] {
  return [...new Set([...tokenCases(cases), ...promptCases(cases)])];
}
