/**
 * A CostModelShape -> Workload, with the kernel borders of models/build.ts. These are costs only: no program stands behind
 * them, and no backend runs them. Experts are divided over the sockets like every other matrix. Which experts a row needs
 * is known when the router is done, so their weights do not stream ahead; over a batch the expected number of distinct
 * experts is read.
 */
import type { Schedule } from '../../ir/program.js';
import type { Machine } from '../machine.js';
import {
  addCosts,
  noCost,
  type Category,
  type Point,
  type NodeClass,
  type WorkCall,
  type WorkInput,
  type WorkKernel,
  type Workload,
  type WorkNode,
} from '../workload.js';
import { costModelParameters, expectedDistinctExperts, type CostModelShape, type LayerShape } from './shapes.js';

const activationBytes = 2;
const cacheBytes = 2;

/** A kernel of the operator schedule: some nodes, written over indices of the layer. */
interface Group {
  readonly name: string;
  readonly nodes: readonly WorkNode[];
}

export function costModelWorkload(shape: CostModelShape, machine: Machine, point: Point): Workload {
  const { schedule, sockets, batch, context } = point;
  const build = new LayerBuilder(shape, sockets, batch, context);
  const calls: WorkCall[] = [{ kernel: kernelOf('embed', build.embed()) }];
  let layer = 0;
  for (const { layers, count } of shape.runs) {
    const bodies = layers.map((each) => build.layer(each));
    calls.push(...callsOfRun(bodies, count, layer, schedule, machine));
    layer += count * layers.length;
  }
  calls.push({ kernel: kernelOf('lm_head', build.head()) }, { kernel: kernelOf('sample', build.sample()) });
  const residentBytes = build.residentBytes();
  const base = { name: shape.name, schedule, sockets, batch, context, residentBytes };
  if (schedule !== 'response') return { ...base, calls, tokens: 1 };
  const parts = calls.flatMap(({ kernel }) => kernel.parts);
  return { ...base, calls: [{ kernel: { name: 'response', parts, repeat: responseTokens } }], tokens: responseTokens };
}

const responseTokens = 32;

function kernelOf(
  name: string,
  nodes: readonly WorkNode[],
  trip = 1,
  ahead: number | 'machine' = 'machine',
): WorkKernel {
  return { name, parts: [{ nodes, trip, ahead }], repeat: 1 };
}

function callsOfRun(
  bodies: readonly (readonly Group[])[],
  count: number,
  first: number,
  schedule: Schedule,
  machine: Machine,
): WorkCall[] {
  if (schedule === 'looped' || schedule === 'response') {
    const nodes = chain(bodies.flat());
    const carried = nodes.map((node, index) => (index > 0 ? node : afterLast(node, nodes.length - 1)));
    return [{ kernel: kernelOf(`decoder_${first}`, carried, count, machine.onChip.capacity.value / 4), layer: first }];
  }
  const kernels = bodies.map((groups, index) =>
    schedule === 'layer'
      ? [kernelOf(`layer_${first + index}`, chain(groups))]
      : groups.map((group) => kernelOf(`${group.name}_${first + index}`, chain([group]))),
  );
  return Array.from({ length: count }, (_, i) => i).flatMap((i) =>
    kernels.flatMap((own, index) => own.map((kernel) => ({ kernel, layer: first + i * bodies.length + index }))),
  );
}

function afterLast(node: WorkNode, last: number): WorkNode {
  return { ...node, inputs: [...node.inputs, { node: last, distance: 1, mode: 'whole' }] };
}

/** Groups one behind another; the first node of each reads the last of the one before. Indices become those of the whole. */
function chain(groups: readonly Group[]): WorkNode[] {
  const nodes: WorkNode[] = [];
  for (const group of groups) {
    const base = nodes.length;
    for (const node of group.nodes) {
      const inputs = node.inputs.map((input): WorkInput => ({ ...input, node: input.node + base }));
      const starts = node.inputs.length === 0 && base > 0;
      const mode = node.kind === 'collective' ? 'stream' : 'whole';
      nodes.push({ ...node, inputs: starts ? [{ node: base - 1, distance: 0, mode }] : inputs, stage: base });
    }
  }
  return nodes;
}

class LayerBuilder {
  constructor(
    private readonly shape: CostModelShape,
    private readonly sockets: number,
    private readonly batch: number,
    private readonly context: number,
  ) {}

  embed(): WorkNode[] {
    const { hidden, weightBytes } = this.shape;
    const cost = { ...noCost, weightBytes: this.batch * hidden * weightBytes };
    return [this.node('embed', 'elementwise', 'other', cost, [])];
  }

  head(): WorkNode[] {
    const { hidden, vocab } = this.shape;
    return [
      this.norm('norm', 'other'),
      this.linear('logits', vocab / this.sockets, hidden, [whole(0)], 'other'),
      this.collective('gather', vocab, [stream(1)], 'gather', 'other'),
    ];
  }

  sample(): WorkNode[] {
    const cost = { ...noCost, activationBytes: this.batch * this.shape.vocab * activationBytes };
    return [this.node('sample', 'sampling', 'other', cost, [])];
  }

  layer(layer: LayerShape): Group[] {
    const { hidden } = this.shape;
    return [
      { name: 'attn_norm', nodes: [this.norm('attn_norm')] },
      ...this.attention(layer.window),
      { name: 'attn_add', nodes: [this.collective('attn_sum', hidden, []), this.add([stream(0)])] },
      { name: 'ffn_norm', nodes: [this.norm('ffn_norm')] },
      ...this.feedForward(layer),
      { name: 'ffn_add', nodes: [this.collective('ffn_sum', hidden, []), this.add([stream(0)])] },
    ];
  }

  private attention(window: number | undefined): Group[] {
    const { hidden, attention } = this.shape;
    const positions = Math.min(this.context, window ?? this.context);
    if (attention.kind === 'grouped') {
      const { heads, headDim } = attention;
      const own = Math.max(1, attention.kvHeads / this.sockets);
      const q = (heads / this.sockets) * headDim;
      const kv = own * headDim;
      return [
        {
          name: 'qkv',
          nodes: [this.linear('q', q, hidden), this.linear('k', kv, hidden), this.linear('v', kv, hidden)],
        },
        { name: 'append', nodes: [this.append(2 * kv)] },
        { name: 'attention', nodes: [this.attend(own, q / headDim / own, positions, 2 * headDim, 4 * q * positions)] },
        { name: 'o_proj', nodes: [this.linear('o', hidden, q)] },
      ];
    }
    const { heads, queryRank, kvRank, ropeDim, nopeDim, valueDim } = attention;
    const own = heads / this.sockets;
    const latent = kvRank + ropeDim;
    // The up-projections of keys and values are absorbed into those of queries and results.
    return [
      { name: 'qkv_down', nodes: [this.linear('q_down', queryRank, hidden), this.linear('kv_down', latent, hidden)] },
      {
        name: 'q_up',
        nodes: [
          this.linear('q_up', own * (nopeDim + ropeDim), queryRank),
          this.linear('q_latent', own * kvRank, nopeDim, [whole(0)], 'gemm'),
        ],
      },
      { name: 'append', nodes: [this.append(latent)] },
      { name: 'attention', nodes: [this.attend(1, own, positions, latent, 4 * own * latent * positions)] },
      {
        name: 'o_proj',
        nodes: [
          this.linear('v_up', own * valueDim, kvRank),
          this.linear('o', hidden, own * valueDim, [whole(0)], 'gemm'),
        ],
      },
    ];
  }

  private feedForward({ denseFfn, experts }: LayerShape): Group[] {
    const { hidden } = this.shape;
    const groups: Group[] = [];
    if (denseFfn > 0) {
      const own = denseFfn / this.sockets;
      groups.push(
        { name: 'gate_up', nodes: [this.linear('gate_up', 2 * own, hidden), this.silu(own, [stream(0)])] },
        { name: 'down_proj', nodes: [this.linear('down', hidden, own)] },
      );
    }
    if (experts === undefined) return groups;
    const own = experts.ffn / this.sockets;
    const read = expectedDistinctExperts(experts.count, experts.perToken, this.batch);
    const matrix = (name: string, out: number, width: number, inputs: WorkInput[]): WorkNode => {
      const flops = 2 * this.batch * experts.perToken * out * width;
      const weightBytes = read * out * width * this.shape.expertBytes;
      const rows = Math.max(1, (this.batch * experts.perToken) / read);
      return { ...this.node(name, 'linear', 'gemm', { ...noCost, flops, weightBytes }, inputs), rows, addressed: true };
    };
    return [
      ...groups,
      {
        name: 'router',
        nodes: [this.linear('router', experts.count, hidden), this.norm('choose', 'elementwise', [whole(0)])],
      },
      {
        name: 'expert_gate_up',
        nodes: [matrix('expert_gate_up', 2 * own, hidden, []), this.silu(own * experts.perToken, [stream(0)])],
      },
      { name: 'expert_down', nodes: [matrix('expert_down', hidden, own, [])] },
    ];
  }

  /** Weights and cache of one socket. */
  residentBytes(): number {
    const { shape, sockets, batch, context } = this;
    const { attention, expertBytes, weightBytes, runs, hidden } = shape;
    let expertWeights = 0;
    let layers = 0;
    for (const { layers: each, count } of runs) {
      layers += each.length * count;
      for (const { experts } of each)
        expertWeights += experts === undefined ? 0 : 3 * hidden * experts.count * experts.ffn * count;
    }
    const others = costModelParameters(shape) - expertWeights;
    const cached =
      attention.kind === 'grouped'
        ? 2 * Math.max(1, attention.kvHeads / sockets) * attention.headDim
        : attention.kvRank + attention.ropeDim;
    const cache = layers * batch * context * cached * cacheBytes;
    return (expertWeights * expertBytes + others * weightBytes) / sockets + cache;
  }

  private linear(
    name: string,
    out: number,
    width: number,
    inputs: readonly WorkInput[] = [],
    category: Category = 'gemm',
  ): WorkNode {
    const cost = {
      flops: 2 * this.batch * out * width,
      weightBytes: out * width * this.shape.weightBytes,
      stateBytes: 0,
      activationBytes: this.batch * (out + width) * activationBytes,
    };
    return this.node(name, 'linear', category, cost, inputs);
  }

  private append(features: number): WorkNode {
    const bytes = this.batch * features * cacheBytes;
    return this.node('append', 'cache', 'attention', { ...noCost, stateBytes: bytes, activationBytes: bytes }, []);
  }

  private attend(heads: number, queries: number, positions: number, width: number, flopsPerRow: number): WorkNode {
    const stateBytes = this.batch * heads * positions * width * cacheBytes;
    const cost = { ...noCost, flops: this.batch * flopsPerRow, stateBytes };
    const node = this.node('attention', 'attention', 'attention', cost, []);
    return { ...node, streams: heads * this.batch, queries };
  }

  private norm(name: string, category: Category = 'elementwise', inputs: readonly WorkInput[] = []): WorkNode {
    return this.elementwise(name, 2 * this.shape.hidden, category, inputs);
  }

  private silu(width: number, inputs: readonly WorkInput[]): WorkNode {
    return this.elementwise('silu', 3 * width, 'elementwise', inputs);
  }

  private add(inputs: readonly WorkInput[]): WorkNode {
    return { ...this.elementwise('add', 3 * this.shape.hidden, 'all-reduce', inputs), epilogue: true };
  }

  private elementwise(name: string, touched: number, category: Category, inputs: readonly WorkInput[]): WorkNode {
    return this.node(
      name,
      'elementwise',
      category,
      { ...noCost, activationBytes: this.batch * touched * activationBytes },
      inputs,
    );
  }

  private collective(
    name: string,
    width: number,
    inputs: readonly WorkInput[],
    kind: 'sum' | 'gather' = 'sum',
    category: Category = 'all-reduce',
  ): WorkNode {
    const bytes = this.batch * width * activationBytes;
    const node = this.node(name, 'collective', category, { ...noCost, activationBytes: 2 * bytes }, inputs);
    return { ...node, collective: { kind, sockets: this.sockets, bytes } };
  }

  private node(
    name: string,
    kind: NodeClass,
    category: Category,
    cost: WorkNode['cost'],
    inputs: readonly WorkInput[],
  ): WorkNode {
    return { name, kind, category, cost: addCosts([cost]), stage: 0, rows: this.batch, streams: 1, inputs };
  }
}

function whole(node: number): WorkInput {
  return { node, distance: 0, mode: 'whole' };
}

function stream(node: number): WorkInput {
  return { node, distance: 0, mode: 'stream' };
}
