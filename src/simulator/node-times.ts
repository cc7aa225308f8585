/**
 * What an operator costs on a machine, in picoseconds: loading its bytes, working on them, its latency. All physics of
 * the simulator that is not waiting is here.
 */
import { allGatherTime, bestAllReduce } from './collectives.js';
import { interpolate } from '../util/statistics.js';
import type { Machine } from './machine.js';
import { addCosts, type WorkNode, type WorkPart } from './workload.js';

const psPerSecond = 1e12;
const psPerMicrosecond = 1e6;

export function picoseconds(seconds: number): number {
  return Math.round(seconds * psPerSecond);
}

export function microsecondsToPs(us: number): number {
  return Math.round(us * psPerMicrosecond);
}

export function psToMicroseconds(ps: number): number {
  return ps / psPerMicrosecond;
}

export interface NodeTimes {
  /** From near memory and from the memory behind it. */
  readonly bytes: number;
  /** Work on its units, whole. */
  readonly work: number;
  readonly latency: number;
  /** On the link instead of the units. */
  readonly onLink: boolean;
}

/**
 * Times of all nodes of a part. On a dataflow machine units are dealt out so that matrix products and attention work equally
 * long; what else there is takes as long as its rows.
 */
export function timesOf(part: WorkPart, machine: Machine): NodeTimes[] {
  const balanced = machine.style === 'dataflow' ? workSeconds(part.nodes, machine) : undefined;
  return part.nodes.map((node) => nodeTimes(node, machine, balanced));
}

/** Arithmetic, in padded rows, and reading from on-chip memory, on all units of the machine. */
function workSeconds(nodes: readonly WorkNode[], machine: Machine): number {
  const arithmetic = nodes.reduce((sum, node) => sum + arithmeticSeconds(node, machine), 0);
  return Math.max(arithmetic, readSeconds(nodes, machine));
}

function arithmeticSeconds(node: WorkNode, { compute }: Machine): number {
  const { kind, format, rows, cost } = node;
  // The rate at which a row is multiplied with weights is that at which they are read.
  if (rows === 1 && format !== undefined && compute.weightRates?.[format] !== undefined) return 0;
  const own = format === undefined ? undefined : compute.formatMatrixRates?.[format];
  const rates = kind === 'linear' ? (own ?? compute.matrixRates) : undefined;
  const peak =
    rates === undefined || rates.length === 0
      ? compute.peak.value
      : interpolate(
          rates.map(({ size, rate }) => ({ size: size.value, rate: rate.value })),
          cost.flops / rows / 2,
        );
  return paddedFlops(node, compute.rowTile.value) / (peak * compute.usable.value);
}

/** Weights and state, each once; weights of some formats are read more slowly than on-chip memory would give them. */
function readSeconds(nodes: readonly WorkNode[], { compute: { weightRates = {} }, onChip }: Machine): number {
  const { stateBytes } = addCosts(nodes.map(({ cost }) => cost));
  let weightBytes = 0;
  let seconds = 0;
  for (const { cost, format } of nodes) {
    const rate = format === undefined ? undefined : weightRates[format];
    if (rate === undefined) weightBytes += cost.weightBytes;
    else seconds += cost.weightBytes / rate.value;
  }
  return seconds + (weightBytes + stateBytes) / onChip.bandwidth.value;
}

/** Rows that share a matrix, or queries that share keys and values, are computed in whole row tiles. */
function paddedFlops({ kind, cost, rows, queries = 1 }: WorkNode, rowTile: number): number {
  const together = kind === 'linear' ? rows : kind === 'attention' ? queries : undefined;
  if (together === undefined) return cost.flops;
  return (cost.flops / together) * Math.ceil(together / rowTile) * rowTile;
}

function nodeTimes(node: WorkNode, machine: Machine, balanced: number | undefined): NodeTimes {
  const bytes = node.cost.weightBytes + node.cost.stateBytes;
  if (node.collective !== undefined) return { bytes, ...collectiveTimes(node.collective, machine), onLink: true };
  const shared = node.kind === 'linear' || node.kind === 'attention';
  const seconds = Math.max(
    shared && balanced !== undefined ? balanced : workSeconds([node], machine),
    node.kind === 'attention' ? attentionSeconds(node, machine) : 0,
    rowSeconds(node, machine),
  );
  const latency = node.epilogue === true ? 0 : machine.latency[latencyOf(node)].value;
  return { bytes, work: picoseconds(seconds), latency: microsecondsToPs(latency), onLink: false };
}

/**
 * Reading keys and values. On a dataflow machine attention is a stage with units of its own, which all sequences pass
 * one after another; on a sequential one, sequences and heads are spread over the units.
 */
function attentionSeconds({ cost, streams }: WorkNode, { style, compute }: Machine): number {
  const sideBySide = style === 'dataflow' ? 1 : streams;
  return cost.stateBytes / (sideBySide * compute.headBandwidth.value);
}

function latencyOf({ kind }: WorkNode): Exclude<keyof Machine['latency'], 'stage'> {
  return kind === 'collective' ? 'elementwise' : kind;
}

/** Moving the activations of the rows, which share nothing; matrix products of sequential machines spread them. */
function rowSeconds({ kind, cost, rows }: WorkNode, { style, compute }: Machine): number {
  if (style === 'sequential' && (kind === 'linear' || kind === 'attention')) return 0;
  const turns = Math.ceil(rows / compute.rowLanes.value);
  return (turns * (cost.activationBytes / rows)) / compute.rowBandwidth.value;
}

function collectiveTimes(
  { kind, sockets, bytes }: NonNullable<WorkNode['collective']>,
  { link }: Machine,
): { readonly work: number; readonly latency: number } {
  const rates = {
    bandwidth: link.bandwidth.value,
    latency: link.latency.value * 1e-6,
    perPeer: link.perPeer.value * 1e-6,
  };
  const time =
    kind === 'sum' ? bestAllReduce(link.algorithms, bytes, sockets, rates) : allGatherTime(bytes, sockets, rates);
  return { work: picoseconds(time.busy), latency: picoseconds(time.latency) };
}
