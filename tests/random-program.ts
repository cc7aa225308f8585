/**
 * Small random programs for properties: chains of layer-like blocks over a residual, some layers alike and some not, with
 * what loops must cope with (periods, odd layers, shared weights, an activation that is read by two layers). Everything is
 * made from a recipe of plain numbers, so that failures shrink.
 */
import fc from 'fast-check';
import type { Limits, Name, Operator, Program, Tensor } from '../src/ir/program.js';
import { print } from '../src/ir/print.js';
import { ProgramBuilder } from '../src/models/program-builder.js';
import { makeOperator as op } from '../src/ops/make.js';
import { settingsPerSample } from '../src/ops/sample.js';

export { randomInputs, randomWeights } from './random-data.js';

/** Names of values or weights of one block of one layer. */
type Naming = (name: Name) => Name;

interface Place {
  readonly layer: number;
  /** The layer, or the kind of layer, that the weights belong to. */
  readonly weights: number;
  readonly x: Name;
  readonly y: Name;
}

export interface Recipe {
  readonly limits: Limits;
  readonly hidden: number;
  readonly headDim: number;
  readonly kvHeads: number;
  /** Query heads for each key/value head. */
  readonly queriesPerHead: number;
  readonly vocab: number;
  readonly format: 'f32' | 'bf16';
  /** Kinds of layers. */
  readonly templates: readonly (readonly Block[])[];
  /** Of every layer, the index of its template. */
  readonly layers: readonly number[];
  /** All layers of a kind have the same weights. */
  readonly sharedWeights: boolean;
  /** The last layer also reads what went into the first. */
  readonly skip: boolean;
  /** A call per block, or per operator. */
  readonly wholeBlocks: boolean;
}

export type Block =
  | {
      readonly kind: 'attention';
      readonly window: number;
      readonly softcap: number;
      readonly bias: boolean;
      readonly qkNorm: boolean;
    }
  | { readonly kind: 'gated'; readonly ffn: number; readonly gate: 'siluMul' | 'geluMul' }
  | { readonly kind: 'capped'; readonly cap: number };

const block: fc.Arbitrary<Block> = fc.oneof(
  fc.record({
    kind: fc.constant('attention' as const),
    window: fc.constantFrom(0, 0, 3),
    softcap: fc.constantFrom(0, 0, 5),
    bias: fc.boolean(),
    qkNorm: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('gated' as const),
    ffn: fc.constantFrom(8, 16),
    gate: fc.constantFrom('siluMul' as const, 'geluMul' as const),
  }),
  fc.record({ kind: fc.constant('capped' as const), cap: fc.constantFrom(2, 4) }),
);

export const arbitraryRecipe: fc.Arbitrary<Recipe> = fc
  .array(fc.array(block, { minLength: 1, maxLength: 2 }), { minLength: 1, maxLength: 3 })
  .chain((templates) =>
    fc.record({
      limits: fc.record({
        rows: fc.integer({ min: 2, max: 4 }),
        samples: fc.integer({ min: 1, max: 2 }),
        slots: fc.integer({ min: 1, max: 2 }),
        context: fc.constant(32),
      }),
      hidden: fc.constantFrom(8, 16),
      headDim: fc.constantFrom(2, 4),
      kvHeads: fc.constantFrom(1, 2),
      queriesPerHead: fc.constantFrom(1, 2),
      vocab: fc.integer({ min: 5, max: 12 }),
      format: fc.constantFrom('f32' as const, 'bf16' as const),
      templates: fc.constant(templates),
      layers: layerKinds(templates.length),
      sharedWeights: fc.boolean(),
      skip: fc.boolean(),
      wholeBlocks: fc.boolean(),
    }),
  );

/** Equal layers, layers in turn, or any order. */
function layerKinds(kinds: number): fc.Arbitrary<number[]> {
  const count = fc.integer({ min: 1, max: 6 });
  return fc.oneof(
    count.map((length) => Array<number>(length).fill(0)),
    count.map((length) => Array.from({ length }, (_, layer) => layer % kinds)),
    fc.array(fc.nat({ max: kinds - 1 }), { minLength: 1, maxLength: 6 }),
  );
}

/** Valid programs in the `operator` schedule; a failing one is shown in its text form. */
export const arbitraryProgram: fc.Arbitrary<Program> = arbitraryRecipe.map((recipe) => {
  const program = programOf(recipe);
  Object.defineProperty(program, fc.toStringMethod, { value: () => print(program) });
  return program;
});

export function programOf(recipe: Recipe): Program {
  return new RandomProgram(recipe).build();
}

class RandomProgram {
  private readonly program: ProgramBuilder;
  private readonly declared = new Set<Name>();

  constructor(private readonly recipe: Recipe) {
    this.program = new ProgramBuilder('random', recipe.limits);
  }

  build(): Program {
    const { layers, templates, skip } = this.recipe;
    this.inputs();
    layers.forEach((kind, layer) => {
      let x = `x.${layer}`;
      if (skip && layer > 0 && layer === layers.length - 1) {
        const sum = `skipped.${layer}`;
        this.call('skip', layer, [op('add', { a: x, b: 'x.0' }, { y: sum })]);
        x = sum;
      }
      const blocks = templates[kind]!;
      blocks.forEach((part, index) => {
        const y = index === blocks.length - 1 ? `x.${layer + 1}` : `y${index}.${layer}`;
        const weights = this.recipe.sharedWeights ? kind : layer;
        this.block(part, `${kind}_${index}`, { layer, weights, x, y });
        x = y;
      });
    });
    this.head(`x.${layers.length}`);
    const recurring = ['tokens', 'positions', 'remaining', 'done'];
    return this.program.finish(
      ['logits', 'emitted'],
      recurring.map((input) => ({ output: `next_${input}`, input })),
    );
  }

  private inputs(): void {
    const { limits, headDim, vocab, hidden } = this.recipe;
    const index = (name: Name, ...shape: Tensor['shape']): void =>
      this.program.input(name, { dtype: 'i32', shape, role: 'index' });
    for (const name of ['tokens', 'positions', 'slots']) index(name, 'rows');
    for (const name of ['index', 'remaining', 'done']) index(name, 'samples');
    index('seeds', 'samples', 2);
    index('stop_tokens', 16);
    this.program.input('settings', { dtype: 'f32', shape: ['samples', settingsPerSample], role: 'index' });
    this.program.state('history', { dtype: 'i32', shape: [limits.slots, limits.context], role: 'state' });
    const frequencies = Array.from({ length: headDim / 2 }, (_, i) => 1 / (i + 1));
    this.program.constant('frequencies', { dtype: 'f32', shape: [headDim / 2], role: 'weight' }, frequencies);
    this.matrix('embedding', vocab, hidden);
    this.program.call('embed', undefined, [
      op('appendToken', { tokens: 'tokens', slots: 'slots', positions: 'positions' }, {}, { history: 'history' }),
      op('embed', { tokens: 'tokens', table: 'embedding' }, { y: 'x.0' }, {}, { scale: 2 }),
      op('ropeTable', { positions: 'positions', frequencies: 'frequencies' }, { table: 'rope' }),
    ]);
  }

  private block(part: Block, id: string, at: Place): void {
    const { layer, weights } = at;
    const local = (name: Name): Name => `${name}_${id}.${layer}`;
    const weight = (name: Name): Name => `${name}_${id}.${weights}`;
    const operators = this.blockOperators(part, at, local, weight);
    if (this.recipe.wholeBlocks) this.program.call(part.kind, layer, operators);
    else this.call(part.kind, layer, operators);
  }

  private blockOperators(part: Block, { x, y }: Place, local: Naming, weight: Naming): Operator[] {
    const { hidden } = this.recipe;
    this.vector(weight('w_norm'), hidden);
    const norm = op(
      'rmsNorm',
      { x, weight: weight('w_norm') },
      { y: local('h') },
      {},
      { eps: 1e-5, offset: this.recipe.hidden === 8 ? 0 : 1 },
    );
    switch (part.kind) {
      case 'attention':
        return [norm, ...this.attention(part, local, weight), op('add', { a: x, b: local('o') }, { y })];
      case 'gated': {
        this.matrix(weight('w_gate'), part.ffn, hidden);
        this.matrix(weight('w_up'), part.ffn, hidden);
        this.matrix(weight('w_down'), hidden, part.ffn);
        return [
          norm,
          op('linear', { x: local('h'), weight: weight('w_gate') }, { y: local('gate') }),
          op('linear', { x: local('h'), weight: weight('w_up') }, { y: local('up') }),
          op(part.gate, { gate: local('gate'), up: local('up') }, { y: local('u') }),
          op('linear', { x: local('u'), weight: weight('w_down') }, { y: local('d') }),
          op('add', { a: x, b: local('d') }, { y }),
        ];
      }
      case 'capped':
        return [
          norm,
          op('softcap', { x: local('h') }, { y: local('c') }, {}, { cap: part.cap }),
          op('add', { a: local('c'), b: x }, { y }),
        ];
      default:
        return part satisfies never;
    }
  }

  private attention(part: Block & { kind: 'attention' }, local: Naming, weight: Naming): Operator[] {
    const { hidden, headDim, kvHeads, queriesPerHead, limits, format } = this.recipe;
    const heads = kvHeads * queriesPerHead;
    const operators: Operator[] = [];
    for (const [letter, width] of [
      ['q', heads * headDim],
      ['k', kvHeads * headDim],
      ['v', kvHeads * headDim],
    ] as const) {
      this.matrix(weight(`w_${letter}`), width, hidden);
      if (part.bias) this.vector(weight(`b_${letter}`), width);
      const bias = part.bias ? { bias: weight(`b_${letter}`) } : {};
      operators.push(op('linear', { x: local('h'), weight: weight(`w_${letter}`), ...bias }, { y: local(letter) }));
    }
    for (const letter of ['q', 'k'] as const) {
      if (part.qkNorm) {
        this.vector(weight(`w_${letter}_norm`), headDim);
        const reads = { x: local(letter), weight: weight(`w_${letter}_norm`) };
        operators.push(op('rmsNorm', reads, { y: local(`${letter}_normed`) }, {}, { eps: 1e-6, offset: 0 }));
      }
      const x = local(part.qkNorm ? `${letter}_normed` : letter);
      const pairing = hidden === 8 ? 'halves' : 'adjacent';
      operators.push(op('rope', { x, table: 'rope' }, { y: local(`${letter}_rot`) }, {}, { headDim, pairing }));
    }
    const cache: Tensor = { dtype: format, shape: [limits.slots, kvHeads, limits.context, headDim], role: 'state' };
    this.program.state(local('keys'), cache);
    this.program.state(local('values'), cache);
    this.matrix(weight('w_o'), hidden, heads * headDim);
    const where = { slots: 'slots', positions: 'positions' };
    const caches = { keys: local('keys'), values: local('values') };
    const { window, softcap } = part;
    const attributes = { heads, scale: 1 / Math.sqrt(headDim), softcap, window };
    return [
      ...operators,
      op('appendKv', { k: local('k_rot'), v: local('v'), ...where }, {}, caches),
      op('attention', { q: local('q_rot'), ...caches, ...where }, { y: local('a') }, {}, attributes),
      op('linear', { x: local('a'), weight: weight('w_o') }, { y: local('o') }),
    ];
  }

  private head(x: Name): void {
    this.matrix('w_head', this.recipe.vocab, this.recipe.hidden);
    const inputs = <K extends string>(...names: K[]): Record<K, Name> =>
      Object.fromEntries(names.map((name) => [name, name as Name])) as Record<K, Name>;
    this.program.call('lm_head', undefined, [
      op('gatherRows', { x, index: 'index' }, { y: 'last' }),
      op('linear', { x: 'last', weight: 'w_head' }, { y: 'logits' }),
    ]);
    const sampled = inputs('logits', 'index', 'slots', 'positions', 'history', 'settings', 'seeds');
    const stopped = inputs('token', 'index', 'positions', 'remaining', 'done', 'stop_tokens');
    const written = inputs('next_tokens', 'next_positions', 'next_remaining', 'next_done', 'emitted');
    this.program.call('sample', undefined, [
      op('sample', sampled, { token: 'token' }),
      op('advance', stopped, written),
    ]);
  }

  /** One call per operator. */
  private call(kernel: Name, layer: number, operators: readonly Operator[]): void {
    for (const operator of operators) {
      this.program.call(`${kernel}_${operator.kind}`.toLowerCase(), layer, [operator]);
    }
  }

  private matrix(name: Name, rows: number, columns: number): void {
    this.weight(name, { dtype: this.recipe.format, shape: [rows, columns], role: 'weight' });
  }

  private vector(name: Name, length: number): void {
    this.weight(name, { dtype: 'f32', shape: [length], role: 'weight' });
  }

  private weight(name: Name, tensor: Tensor): void {
    if (this.declared.has(name)) return;
    this.declared.add(name);
    this.program.weight(name, tensor, `checkpoint.${name}`);
  }
}
