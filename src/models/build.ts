/**
 * ModelConfig -> Program in the `operator` schedule: embed, ten kernels per decoder layer, LM head, sample. One description
 * serves all families; what a family does not have is left out. Kernel borders are those of the paper's Figure 2:
 * norm, QKV, RoPE + KV append, attention, output projection, residual, norm, gate/up, down projection, residual.
 */
import { blockOf, plainFormat } from '../ir/formats.js';
import { baseName } from '../ir/outline.js';
import type { DType, Limits, Name, Operator, Program, Tensor } from '../ir/program.js';
import { makeOperator as op } from '../ops/make.js';
import { allowedWords, maxBiasedTokens, settingsPerSample } from '../ops/sample.js';
import { ProgramBuilder } from './program-builder.js';
import type { ModelConfig } from './model-config.js';
import { ropeFrequencies } from './rope.js';

export interface BuildOptions {
  readonly limits: Limits;
  /** Format of the matrices; that of the checkpoint where absent. Norms and biases are always f32 (exact). */
  readonly weightFormat?: DType;
  /** Format of each matrix, where they differ; wins over weightFormat. @param tensor its name in the checkpoint */
  readonly formatOf?: (tensor: string) => DType;
  /** Format of the KV cache. */
  readonly stateFormat?: DType;
}

/** Format of the KV cache where none is asked for: as precise as the weights. */
export function defaultStateFormat(weightFormat: DType): DType {
  return weightFormat === 'f32' ? 'f32' : 'bf16';
}

/** The token step of this model. Weight values name their tensors as Hugging Face checkpoints do. */
export function buildProgram(config: ModelConfig, options: BuildOptions): Program {
  const build = new ModelBuilder(config, options);
  build.inputs();
  build.embed();
  for (let layer = 0; layer < config.layers; layer++) build.decoderLayer(layer);
  build.head();
  return build.finish();
}

class ModelBuilder {
  private readonly program: ProgramBuilder;
  private readonly weightFormat: DType;
  private readonly stateFormat: DType;

  constructor(
    private readonly config: ModelConfig,
    private readonly options: BuildOptions,
  ) {
    this.program = new ProgramBuilder(config.name, options.limits);
    this.weightFormat = options.weightFormat ?? config.dtype;
    this.stateFormat = options.stateFormat ?? defaultStateFormat(this.weightFormat);
  }

  finish(): Program {
    return this.program.finish(
      ['logits', 'emitted'],
      ['tokens', 'positions', 'remaining', 'done'].map((input) => ({ output: `next_${input}`, input })),
    );
  }

  inputs(): void {
    const index = (name: Name, ...shape: Tensor['shape']): void =>
      this.program.input(name, { dtype: 'i32', shape, role: 'index' });
    for (const name of ['tokens', 'positions', 'slots']) index(name, 'rows');
    for (const name of ['index', 'remaining', 'done']) index(name, 'samples');
    index('seeds', 'samples', 2);
    index('stop_tokens', 16);
    index('biased', 'samples', maxBiasedTokens);
    index('allowed', 'samples', allowedWords(this.config.vocab));
    const perSample = (name: Name, length: number): void =>
      this.program.input(name, { dtype: 'f32', shape: ['samples', length], role: 'index' });
    perSample('biases', maxBiasedTokens);
    perSample('settings', settingsPerSample);
    const { slots, context } = this.options.limits;
    this.program.state('history', { dtype: 'i32', shape: [slots, context], role: 'state' });
    const frequencies = ropeFrequencies(this.config.rope, this.config.headDim);
    this.program.constant('frequencies', { dtype: 'f32', shape: [frequencies.length], role: 'weight' }, frequencies);
  }

  embed(): void {
    const { vocab, hidden, embeddingScale } = this.config;
    this.matrix('embedding', 'model.embed_tokens.weight', vocab, hidden);
    this.program.call('embed', undefined, [
      op('appendToken', { tokens: 'tokens', slots: 'slots', positions: 'positions' }, {}, { history: 'history' }),
      op('embed', { tokens: 'tokens', table: 'embedding' }, { y: 'x.0' }, {}, { scale: embeddingScale }),
      op('ropeTable', { positions: 'positions', frequencies: 'frequencies' }, { table: 'rope' }),
    ]);
  }

  decoderLayer(layer: number): void {
    const at = (name: Name): Name => `${name}.${layer}`;
    this.attentionHalf(layer, at);
    this.feedForwardHalf(layer, at);
  }

  private attentionHalf(layer: number, at: (name: Name) => Name): void {
    const { config } = this;
    const { hidden, heads, kvHeads, headDim } = config;
    const call = (kernel: Name, ...operators: Operator[]): void => this.program.call(kernel, layer, operators);
    const prefix = `model.layers.${layer}`;

    call('attn_norm', this.norm(at('w_attn_norm'), `${prefix}.input_layernorm.weight`, at('x'), at('h')));

    const projection = (letter: 'q' | 'k' | 'v', count: number): Operator => {
      const tensor = `${prefix}.self_attn.${letter}_proj`;
      this.matrix(at(`w_${letter}`), `${tensor}.weight`, count * headDim, hidden);
      if (!config.qkvBias) return op('linear', { x: at('h'), weight: at(`w_${letter}`) }, { y: at(letter) });
      this.vector(at(`b_${letter}`), `${tensor}.bias`, count * headDim);
      return op('linear', { x: at('h'), weight: at(`w_${letter}`), bias: at(`b_${letter}`) }, { y: at(letter) });
    };
    call('qkv', projection('q', heads), projection('k', kvHeads), projection('v', kvHeads));

    const cache: Tensor = {
      dtype: this.stateFormat,
      shape: [this.options.limits.slots, kvHeads, this.options.limits.context, headDim],
      role: 'state',
    };
    this.program.state(at('keys'), cache);
    this.program.state(at('values'), cache);
    const rotate = (from: Name, to: Name): Operator =>
      op('rope', { x: from, table: 'rope' }, { y: to }, {}, { headDim, pairing: 'halves' });
    const normed = (letter: 'q' | 'k'): Operator[] =>
      config.qkNorm
        ? [
            this.norm(
              at(`w_${letter}_norm`),
              `${prefix}.self_attn.${letter}_norm.weight`,
              at(letter),
              at(`${letter}_normed`),
              headDim,
            ),
          ]
        : [];
    const headsIn = (letter: 'q' | 'k'): Name => at(config.qkNorm ? `${letter}_normed` : letter);
    call(
      'rope_append',
      ...normed('q'),
      ...normed('k'),
      rotate(headsIn('q'), at('q_rot')),
      rotate(headsIn('k'), at('k_rot')),
      op(
        'appendKv',
        { k: at('k_rot'), v: at('v'), slots: 'slots', positions: 'positions' },
        {},
        { keys: at('keys'), values: at('values') },
      ),
    );

    call(
      'attention',
      op(
        'attention',
        { q: at('q_rot'), keys: at('keys'), values: at('values'), slots: 'slots', positions: 'positions' },
        { y: at('a') },
        {},
        {
          heads,
          scale: config.attentionScale,
          softcap: config.attentionSoftcap,
          window: config.windows[layer] ?? 0,
        },
      ),
    );

    this.matrix(at('w_o'), `${prefix}.self_attn.o_proj.weight`, hidden, heads * headDim);
    call('o_proj', op('linear', { x: at('a'), weight: at('w_o') }, { y: at('o') }));
    call('attn_add', ...this.residual(layer, 'attn_post_norm', 'post_attention_layernorm', at('o'), at('x'), at('r')));
  }

  private feedForwardHalf(layer: number, at: (name: Name) => Name): void {
    const { config } = this;
    const { hidden, ffn } = config;
    const call = (kernel: Name, ...operators: Operator[]): void => this.program.call(kernel, layer, operators);
    const prefix = `model.layers.${layer}`;

    const normTensor = config.postNorms ? 'pre_feedforward_layernorm' : 'post_attention_layernorm';
    call('ffn_norm', this.norm(at('w_ffn_norm'), `${prefix}.${normTensor}.weight`, at('r'), at('f')));

    this.matrix(at('w_gate'), `${prefix}.mlp.gate_proj.weight`, ffn, hidden);
    this.matrix(at('w_up'), `${prefix}.mlp.up_proj.weight`, ffn, hidden);
    call(
      'gate_up',
      op('linear', { x: at('f'), weight: at('w_gate') }, { y: at('gate') }),
      op('linear', { x: at('f'), weight: at('w_up') }, { y: at('up') }),
      op(config.activation === 'silu' ? 'siluMul' : 'geluMul', { gate: at('gate'), up: at('up') }, { y: at('u') }),
    );

    this.matrix(at('w_down'), `${prefix}.mlp.down_proj.weight`, hidden, ffn);
    call('down_proj', op('linear', { x: at('u'), weight: at('w_down') }, { y: at('d') }));
    const next = `x.${layer + 1}`;
    call('ffn_add', ...this.residual(layer, 'ffn_post_norm', 'post_feedforward_layernorm', at('d'), at('r'), next));
  }

  head(): void {
    const { config } = this;
    const { vocab, hidden, layers } = config;
    const weight = config.tied ? 'embedding' : 'w_head';
    if (!config.tied) this.matrix('w_head', 'lm_head.weight', vocab, hidden);
    const capped = config.logitSoftcap > 0;
    this.program.call('lm_head', undefined, [
      op('gatherRows', { x: `x.${layers}`, index: 'index' }, { y: 'last' }),
      this.norm('w_norm', 'model.norm.weight', 'last', 'normed'),
      op('linear', { x: 'normed', weight }, { y: capped ? 'scores' : 'logits' }),
      ...(capped ? [op('softcap', { x: 'scores' }, { y: 'logits' }, {}, { cap: config.logitSoftcap })] : []),
    ]);
    this.program.call('sample', undefined, [
      op(
        'sample',
        {
          logits: 'logits',
          index: 'index',
          slots: 'slots',
          positions: 'positions',
          history: 'history',
          settings: 'settings',
          seeds: 'seeds',
          biased: 'biased',
          biases: 'biases',
          allowed: 'allowed',
        },
        { token: 'token' },
      ),
      op(
        'advance',
        {
          token: 'token',
          index: 'index',
          positions: 'positions',
          remaining: 'remaining',
          done: 'done',
          stop_tokens: 'stop_tokens',
        },
        {
          next_tokens: 'next_tokens',
          next_positions: 'next_positions',
          next_remaining: 'next_remaining',
          next_done: 'next_done',
          emitted: 'emitted',
        },
      ),
    ]);
  }

  /** Residual add, with Gemma's norm of the branch before it. */
  private residual(layer: number, norm: Name, tensor: string, branch: Name, x: Name, y: Name): Operator[] {
    if (!this.config.postNorms) return [op('add', { a: x, b: branch }, { y })];
    const normed = `${baseName(branch)}_normed.${layer}`;
    return [
      this.norm(`w_${norm}.${layer}`, `model.layers.${layer}.${tensor}.weight`, branch, normed),
      op('add', { a: x, b: normed }, { y }),
    ];
  }

  private norm(weight: Name, tensor: string, x: Name, y: Name, width = this.config.hidden): Operator {
    this.vector(weight, tensor, width);
    const { normEps: eps, normOffset: offset } = this.config;
    return op('rmsNorm', { x, weight }, { y }, {}, { eps, offset });
  }

  private matrix(name: Name, tensor: string, rows: number, columns: number): void {
    const asked = this.options.formatOf?.(tensor) ?? this.weightFormat;
    const dtype = [asked, plainFormat(asked)].find((format) => fits(format, columns)) ?? this.config.dtype;
    this.program.weight(name, { dtype, shape: [rows, columns], role: 'weight' }, tensor);
  }

  private vector(name: Name, tensor: string, length: number): void {
    this.program.weight(name, { dtype: 'f32', shape: [length], role: 'weight' }, tensor);
  }
}

/** Rows are whole blocks; matrices of other widths keep the precision of the checkpoint. */
function fits(format: DType, columns: number): boolean {
  return columns % blockOf(format).elements === 0;
}
