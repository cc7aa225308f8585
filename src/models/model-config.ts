/**
 * What a decoder-only transformer is to kloop, after the families' spellings have been read away. Every number has been
 * validated (positive integers, products below 2^53, sizes that divide); the builder and the backends rely on it.
 */
export interface ModelConfig {
  /** Published name in lower case (`llama-3.1-8b`), or the directory's name. Never reaches generated code. */
  readonly name: string;
  readonly family: Family;
  readonly layers: number;
  readonly hidden: number;
  /** Inner width of the feed-forward network. */
  readonly ffn: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocab: number;
  /** Longest context the model was trained for, in tokens. */
  readonly context: number;
  readonly normEps: number;
  readonly rope: RopeConfig;
  /** The LM head uses the embedding table. */
  readonly tied: boolean;
  /** Bias on the Q, K and V projections (Qwen2). */
  readonly qkvBias: boolean;
  /** RMSNorm of every query and key head before RoPE (Qwen3). */
  readonly qkNorm: boolean;
  /** Norms after attention and after the feed-forward network, before the residual add (Gemma 2). */
  readonly postNorms: boolean;
  /** Norm weights are stored as w - 1 (Gemma). */
  readonly normOffset: 0 | 1;
  /** Gate activation of the feed-forward network: SwiGLU or GeGLU (tanh form). */
  readonly activation: 'silu' | 'gelu';
  /** Factor on the embedding (Gemma: sqrt(hidden)), else 1. */
  readonly embeddingScale: number;
  /** Scores are multiplied by this before the softmax; usually 1/sqrt(headDim). */
  readonly attentionScale: number;
  /** Soft cap of attention scores, or 0 for none (Gemma 2). */
  readonly attentionSoftcap: number;
  /** Soft cap of the logits, or 0 for none (Gemma 2). */
  readonly logitSoftcap: number;
  /** Per layer: sliding window in tokens, or 0 for full attention. Length = layers. */
  readonly windows: readonly number[];
  /** Precision of the published weights. */
  readonly dtype: 'f32' | 'f16' | 'bf16';
}

export type Family = 'llama' | 'mistral' | 'qwen2' | 'qwen3' | 'gemma2';

export interface RopeConfig {
  readonly theta: number;
  readonly scaling: RopeScaling;
}

export type RopeScaling =
  | { readonly kind: 'none' }
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      /** Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, between them interpolated. */
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalContext: number;
    }
  /** GGUF: what each of the headDim / 2 frequencies is divided by. */
  | { readonly kind: 'divisors'; readonly values: readonly number[] };
