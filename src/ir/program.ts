/**
 * The grammar of the intermediate representation, whole. A program is an ordered list of kernel calls that makes one
 * token step (or, in the `response` schedule, many). Kernels are dataflow: every name is a parameter or is written once.
 * Its meaning is in interpret.ts and ops/; its rules are in verify.ts; its text form is in print.ts and parse.ts.
 *
 * Rows: every activation has a leading dimension `rows` (tokens of this step, of any sequences) or `samples` (rows whose
 * next token is wanted). Both are counts known at run time, up to `Limits`.
 */

/** `[a-z][a-z0-9_]*` inside kernels; program values may add `.layer` and `.tToken` suffixes: `w_q.3`, `tokens.t1`. */
export type Name = string;

/**
 * Sizes are in formats.ts; what q8_0 and the like mean is in checkpoint/dequantize.ts. bf16z is bf16 in fewer bytes, the same
 * numbers (checkpoint/compress.ts).
 */
export type DType =
  'f32' | 'bf16' | 'bf16z' | 'f16' | 'i32' | 'q8_0' | 'q4_0' | 'q4_1' | 'q5_0' | 'q5_1' | 'q4_k' | 'q5_k' | 'q6_k';
export type Dim = number | 'rows' | 'samples';
/** `index` is what the host says about rows: token ids, positions, slots, sampling settings. */
export type Role = 'activation' | 'weight' | 'state' | 'index';

export interface Tensor {
  readonly dtype: DType;
  readonly shape: readonly Dim[];
  readonly role: Role;
}

export type Schedule = 'operator' | 'layer' | 'looped' | 'response';
export const schedules: readonly Schedule[] = ['operator', 'layer', 'looped', 'response'];

export interface Program {
  readonly name: string;
  readonly schedule: Schedule;
  /** Lockstep accelerators of the tensor-parallel group; every socket runs these calls on its shards. */
  readonly sockets: number;
  readonly limits: Limits;
  readonly values: readonly Value[];
  readonly kernels: readonly Kernel[];
  readonly calls: readonly Call[];
  /** Values that the host reads after the last call. */
  readonly outputs: readonly Name[];
  /** What becomes what between two token steps: `output` of one is `input` of the next. */
  readonly recurrence: readonly Recurrence[];
}

/** Largest run-time extents that the program is compiled for. A sequence lives in a slot of `context` positions. */
export interface Limits {
  readonly rows: number;
  readonly samples: number;
  readonly slots: number;
  readonly context: number;
}

export interface Recurrence {
  readonly output: Name;
  readonly input: Name;
}

export interface Value {
  readonly name: Name;
  readonly tensor: Tensor;
  readonly origin: ValueOrigin;
}

export type ValueOrigin =
  /** Supplied by the host before every step. */
  | { readonly kind: 'input' }
  /** A checkpoint tensor, or its rows `first .. first + count - 1`, or this socket's shard of that. */
  | {
      readonly kind: 'checkpoint';
      readonly tensor: string;
      readonly rows?: { readonly first: number; readonly count: number };
      readonly shard?: Shard;
      readonly placement?: Placement;
    }
  /** Small tables derived from the configuration (RoPE frequencies). */
  | { readonly kind: 'constant'; readonly data: readonly number[] }
  /** Zero at first, kept between steps (KV cache, token history). */
  | { readonly kind: 'state' }
  /** Made and read inside the program. */
  | { readonly kind: 'temporary' };

/** Socket s holds part floor(s / replicas) of `parts` equal parts along `axis`; `parts * replicas` = sockets. */
export interface Shard {
  readonly axis: 0 | 1;
  readonly parts: number;
  readonly replicas: number;
}

/** Where packWeights put a weight in the packed file of one socket. `offset` and `bytes` count bytes. */
export interface Placement {
  readonly offset: number;
  readonly bytes: number;
  readonly form: 'rows' | 'tiles';
}

export interface Call {
  readonly kernel: Name;
  /** One per parameter, in order. A stack of n values has a leading dimension n. */
  readonly args: readonly Argument[];
  readonly origin: CallOrigin;
}

export type Argument =
  { readonly kind: 'value'; readonly value: Name } | { readonly kind: 'stack'; readonly values: readonly Name[] };

/** The decoder layer a call belongs to, where it belongs to one. */
export interface CallOrigin {
  readonly layer?: number;
}

export type Access = 'read' | 'write' | 'update';

export interface Param {
  readonly name: Name;
  readonly tensor: Tensor;
  readonly access: Access;
}

export interface Kernel {
  readonly name: Name;
  readonly params: readonly Param[];
  readonly body: Region;
}

export interface Region {
  readonly statements: readonly Statement[];
  /** Which calls these statements were before they were put together, in order; counts add up to the statements. */
  readonly segments: readonly Segment[];
  readonly plan?: RegionPlan;
}

export interface Segment {
  readonly kernel: Name;
  readonly statements: number;
}

export type Statement = Operator | Loop;

/**
 * Runs `body` `trip` times, or until after an iteration in which every element of `until` (a name of the body) is not 0.
 * The body is a scope of its own: it sees only what `bindings` bring in.
 */
export interface Loop {
  readonly kind: 'loop';
  /** What an iteration is: `layer` or `token`. */
  readonly over: Name;
  readonly trip: number;
  readonly until?: Name;
  readonly bindings: readonly Binding[];
  readonly body: Region;
  readonly pipeline?: LoopPipeline;
}

/** How a name of a loop body relates to a name outside it. Exactly one kind holds over all iterations. */
export type Binding =
  /** The same value in every iteration. */
  | { readonly kind: 'invariant'; readonly name: Name; readonly access: 'read' | 'update'; readonly outer: Name }
  /** Iteration i has slice i of the leading dimension of `outer`. */
  | { readonly kind: 'stacked'; readonly name: Name; readonly access: Access; readonly outer: Name }
  /** Iteration 0 has `outer`, iteration i + 1 has what iteration i wrote as `next`; after the loop it is `final`. */
  | { readonly kind: 'carried'; readonly name: Name; readonly next: Name; readonly outer: Name; readonly final?: Name };

/** How workers share a region (planStages). Statements of one stage need no synchronization between workers. */
export interface RegionPlan {
  readonly stages: readonly Stage[];
  /** Locals of which every worker computes a copy of its own. */
  readonly replicated: readonly Name[];
  /** `to` of iteration i + distance may start when all workers have finished `from` of iteration i. Indices of stages. */
  readonly handOffs: readonly HandOff[];
}

export interface Stage {
  readonly name: Name;
  readonly statements: number;
  /**
   * Along what the workers divide it: parts of the last dimension, key/value heads, key/value heads and blocks of the
   * context, not at all, or a loop inside.
   */
  readonly split: 'features' | 'heads' | 'context' | 'single' | 'loop';
}

export interface HandOff {
  readonly from: number;
  readonly to: number;
  readonly distance: number;
}

/** The pipelined outer loop (pipelineLoops): what is double-buffered, and what streams ahead over the iteration border. */
export interface LoopPipeline {
  /** Carried values: iteration i reads copy i mod `copies` and writes copy (i + 1) mod `copies`. */
  readonly buffers: readonly LoopBuffer[];
  /** Stacked reads in the order the body consumes them; `stage` indexes the body's plan. */
  readonly stream: readonly StreamedRead[];
  readonly tileBytes: number;
  /** Tiles that may be under way ahead of the one being consumed, over stage and iteration borders alike. */
  readonly depth: number;
  /** Tiles that the ring holds: tile t goes to slot t mod slots. */
  readonly slots: number;
}

export interface LoopBuffer {
  readonly name: Name;
  readonly copies: number;
  readonly bytes: number;
  /** Name of the nearest memory that holds all copies. */
  readonly memory: string;
}

export interface StreamedRead {
  readonly name: Name;
  readonly stage: number;
  readonly bytes: number;
}

/**
 * The operators: what each reads, writes, updates in place, and its attributes. ops/<operator>.ts has the shapes, cost
 * and meaning of each. A row whose position is negative is idle: it changes no state, and its results are zero.
 */
export interface OperatorTable {
  /** y[rows, hidden] = table[tokens] * scale. */
  embed: Form<'tokens' | 'table', 'y', never, { scale: number }>;
  /** history[slots, context] remembers the tokens at their positions, for the repetition penalty. */
  appendToken: Form<'tokens' | 'slots' | 'positions', never, 'history', None>;
  /** table[rows, 2 * n] = cos, then sin, of position * frequencies[n]. */
  ropeTable: Form<'positions' | 'frequencies', 'table', never, None>;
  /** Over groups of weight's length along the last dimension; the factor is weight + offset. */
  rmsNorm: Form<'x' | 'weight', 'y', never, { eps: number; offset: number }>;
  /** y[rows, out] = x[rows, in] . weight[out, in] (+ bias[out]). */
  linear: Form<'x' | 'weight', 'y', never, None, 'bias'>;
  /** Rotates pairs of every head: elements (i, i + n) for `halves`, (2i, 2i + 1) for `adjacent`. */
  rope: Form<'x' | 'table', 'y', never, { headDim: number; pairing: 'halves' | 'adjacent' }>;
  /** keys and values are [slots, kvHeads, context, headDim]. */
  appendKv: Form<'k' | 'v' | 'slots' | 'positions', never, 'keys' | 'values', None>;
  /** Causal softmax attention of each row over its slot; softcap 0 and window 0 mean none. */
  attention: Form<
    'q' | 'keys' | 'values' | 'slots' | 'positions',
    'y',
    never,
    { heads: number; scale: number; softcap: number; window: number }
  >;
  siluMul: Form<'gate' | 'up', 'y', never, None>;
  /** GELU in its tanh form, times up. */
  geluMul: Form<'gate' | 'up', 'y', never, None>;
  add: Form<'a' | 'b', 'y', never, None>;
  /** Sum over the sockets. */
  allReduce: Form<'x', 'y', never, { sockets: number }>;
  /** Concatenation over the sockets along the last dimension. */
  allGather: Form<'x', 'y', never, { sockets: number }>;
  /** y[samples, n] = x[rows, n] at the rows of index[samples]. */
  gatherRows: Form<'x' | 'index', 'y', never, None>;
  /** cap * tanh(x / cap). */
  softcap: Form<'x', 'y', never, { cap: number }>;
  /** The next token of every sample; settings and seeds as ops/sample.ts says. */
  sample: Form<
    'logits' | 'index' | 'slots' | 'positions' | 'history' | 'settings' | 'seeds',
    'token',
    never,
    None,
    'biased' | 'biases' | 'allowed'
  >;
  /** The stop test, and what the next step needs. `emitted` is -1 for samples that were done before. */
  advance: Form<
    'token' | 'index' | 'positions' | 'remaining' | 'done' | 'stop_tokens',
    'next_tokens' | 'next_positions' | 'next_remaining' | 'next_done' | 'emitted',
    never,
    None
  >;
}

export type OperatorKind = keyof OperatorTable;
export type Operator = { readonly [K in OperatorKind]: OperatorOf<K> }[OperatorKind];

export interface OperatorOf<K extends OperatorKind> {
  readonly kind: K;
  readonly reads: OperatorTable[K]['reads'];
  readonly writes: OperatorTable[K]['writes'];
  readonly updates: OperatorTable[K]['updates'];
  readonly attributes: OperatorTable[K]['attributes'];
}

/** No attributes. */
type None = Readonly<Record<string, never>>;

interface Form<R extends string, W extends string, U extends string, A, O extends string = never> {
  readonly reads: Readonly<Record<R, Name>> & Readonly<Partial<Record<O, Name>>>;
  readonly writes: Readonly<Record<W, Name>>;
  readonly updates: Readonly<Record<U, Name>>;
  readonly attributes: Readonly<A>;
}
