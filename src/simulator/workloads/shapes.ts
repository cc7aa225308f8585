/**
 * Shapes of models that kloop prices but does not run yet: mixtures of experts, and latent attention. The numbers are
 * those of the `config.json` in the Hub repository given as `source`.
 */
export interface CostModelShape {
  readonly name: string;
  readonly source: string;
  readonly description: string;
  readonly hidden: number;
  readonly vocab: number;
  readonly attention: AttentionShape;
  /** Runs of equal layers, first to last; a run of period 2 is given by its two layers. */
  readonly runs: readonly LayerRun[];
  /** Bytes of a weight of the experts, and of all others. */
  readonly expertBytes: number;
  readonly weightBytes: number;
}

export type AttentionShape =
  | { readonly kind: 'grouped'; readonly heads: number; readonly kvHeads: number; readonly headDim: number }
  | {
      /** Multi-head latent attention: a cache of one compressed vector per position, shared by all heads. */
      readonly kind: 'latent';
      readonly heads: number;
      readonly queryRank: number;
      readonly kvRank: number;
      readonly ropeDim: number;
      readonly nopeDim: number;
      readonly valueDim: number;
    };

export interface LayerRun {
  readonly layers: readonly LayerShape[];
  readonly count: number;
}

export interface LayerShape {
  /** Positions that attention looks back over; absent: all. */
  readonly window?: number;
  /** Inner width of the dense network that every token passes (shared experts together), or 0. */
  readonly denseFfn: number;
  readonly experts?: { readonly count: number; readonly perToken: number; readonly ffn: number };
}

function alike(layer: LayerShape, count: number): LayerRun {
  return { layers: [layer], count };
}

const gptOssExperts = { count: 128, perToken: 4, ffn: 2880 };

export const costModelShapes: readonly CostModelShape[] = [
  {
    name: 'mixtral-8x7b',
    source: 'mistralai/Mixtral-8x7B-v0.1',
    description: 'Mixtral, 2 of 8 experts',
    hidden: 4096,
    vocab: 32_000,
    attention: { kind: 'grouped', heads: 32, kvHeads: 8, headDim: 128 },
    runs: [alike({ denseFfn: 0, experts: { count: 8, perToken: 2, ffn: 14_336 } }, 32)],
    expertBytes: 2,
    weightBytes: 2,
  },
  {
    name: 'deepseek-r1',
    source: 'deepseek-ai/DeepSeek-R1',
    description: 'DeepSeek R1, latent attention, 8 of 256 experts and a shared one, FP8',
    hidden: 7168,
    vocab: 129_280,
    attention: { kind: 'latent', heads: 128, queryRank: 1536, kvRank: 512, ropeDim: 64, nopeDim: 128, valueDim: 128 },
    runs: [
      alike({ denseFfn: 18_432 }, 3),
      alike({ denseFfn: 2048, experts: { count: 256, perToken: 8, ffn: 2048 } }, 58),
    ],
    expertBytes: 1,
    weightBytes: 1,
  },
  {
    name: 'llama-4-maverick',
    source: 'meta-llama/Llama-4-Maverick-17B-128E',
    description: 'Llama 4 Maverick, every second layer 1 of 128 experts and a shared one',
    hidden: 5120,
    vocab: 202_048,
    attention: { kind: 'grouped', heads: 40, kvHeads: 8, headDim: 128 },
    runs: [
      {
        layers: [{ denseFfn: 16_384 }, { denseFfn: 8192, experts: { count: 128, perToken: 1, ffn: 8192 } }],
        count: 24,
      },
    ],
    expertBytes: 2,
    weightBytes: 2,
  },
  {
    name: 'gpt-oss-120b',
    source: 'openai/gpt-oss-120b',
    description: 'GPT-OSS, 4 of 128 experts in MXFP4, local and global attention alternate',
    hidden: 2880,
    vocab: 201_088,
    attention: { kind: 'grouped', heads: 64, kvHeads: 8, headDim: 64 },
    runs: [
      {
        layers: [
          { window: 128, denseFfn: 0, experts: gptOssExperts },
          { denseFfn: 0, experts: gptOssExperts },
        ],
        count: 18,
      },
    ],
    // MXFP4: 32 values of 4 bits and a scale of 8 bits.
    expertBytes: 17 / 32,
    weightBytes: 2,
  },
];

export function findCostModel(name: string): CostModelShape | undefined {
  return costModelShapes.find((shape) => shape.name === name.toLowerCase());
}

/** Experts that at least one of `rows` rows chooses, where each chooses `perToken` of `count` evenly. */
export function expectedDistinctExperts(count: number, perToken: number, rows: number): number {
  return count * (1 - (1 - perToken / count) ** rows);
}

/** Weights of the whole model. */
export function costModelParameters(shape: CostModelShape): number {
  const { hidden, vocab, runs } = shape;
  let sum = 2 * vocab * hidden;
  for (const { layers, count } of runs) {
    for (const layer of layers) sum += count * (attentionParameters(shape) + feedForwardParameters(layer, hidden));
  }
  return sum;
}

function attentionParameters({ hidden, attention }: CostModelShape): number {
  if (attention.kind === 'grouped') {
    const { heads, kvHeads, headDim } = attention;
    return hidden * headDim * (2 * heads + 2 * kvHeads);
  }
  const { heads, queryRank, kvRank, ropeDim, nopeDim, valueDim } = attention;
  const query = hidden * queryRank + queryRank * heads * (nopeDim + ropeDim);
  return query + hidden * (kvRank + ropeDim) + kvRank * heads * (nopeDim + valueDim) + heads * valueDim * hidden;
}

function feedForwardParameters({ denseFfn, experts }: LayerShape, hidden: number): number {
  const dense = 3 * hidden * denseFfn;
  return experts === undefined ? dense : dense + hidden * experts.count + 3 * hidden * experts.count * experts.ffn;
}
