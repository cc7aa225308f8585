/** What comes before any timing: whether all that will be timed computes the same, and on a GPU how close it is to float32. */
import { float32InstructionSet } from '../backends/cpu/instruction-set.js';
import { physicalCores } from '../backends/cpu/processors.js';
import { chooseBackend } from '../backends/registry.js';
import type { DType } from '../ir/program.js';
import { defined } from '../util/assert.js';
import { compareWithPeer, requireEqual, type Claim, type PeerAgreement } from './correctness.js';
import {
  gateLimits,
  gateOf,
  gateTokens,
  logitsBehind,
  peerGateLimits,
  type GateLimits,
  type GateResult,
  type LogitsSource,
} from './gate.js';
import type { Peer } from './peer.js';
import { peerVariants } from './peer-variant.js';
import { formatsWith, stopIfAsked, withVariant, type Choice, type Setup } from './setup.js';
import type { Transcript, Variant } from './variant.js';
import { fillerTokens, type Identity } from './workload.js';

/** Greedy tokens that are compared, at most; more than a call of the `response` schedule makes. */
const comparedTokens = 64;

export interface Correctness {
  readonly variants: number;
  /** Greedy tokens that all of them made alike. */
  readonly tokens: number;
  readonly peers: readonly PeerAgreement[];
}

/** Throws KloopError where variants differ, or a peer is further away than rounding explains. */
export async function checkAgreement(
  variants: readonly Variant[],
  peers: readonly Peer[],
  setup: Setup,
): Promise<Correctness> {
  const { checkpoint, plan } = setup;
  const prompt = fillerTokens(plan.depth, checkpoint.config.vocab);
  const tokens = Math.min(comparedTokens, plan.limits.context - plan.depth);
  const claims: Claim[] = [];
  for (const variant of variants) {
    claims.push({ identity: variant.identity, transcript: await variant.transcribe(prompt, tokens) });
    stopIfAsked(setup);
  }
  requireEqual(claims);
  const agreements: PeerAgreement[] = [];
  for (const weights of weightsOf(peers)) {
    const formats = formatsWith(weights, setup);
    const compare = async (variant: Variant, transcript: Transcript): Promise<void> => {
      for (const peer of withWeights(weights, peers)) {
        stopIfAsked(setup);
        agreements.push(await compareWithPeer(variant, peer, prompt, transcript, formats));
      }
    };
    if (formats === setup.formats) {
      await compare(defined(variants[0], 'variant'), defined(claims[0], 'claim').transcript);
      continue;
    }
    const choice: Choice = { schedule: 'looped', threads: Math.max(...setup.threads), formats };
    await withVariant(setup, choice, async (variant) => compare(variant, await variant.transcribe(prompt, tokens)));
  }
  return { variants: variants.length, tokens, peers: agreements };
}

/** Every variant and every peer against float32 arithmetic of the cpu backend, with the same weights. */
export async function checkGates(
  variants: readonly Variant[],
  peers: readonly Peer[],
  setup: Setup,
): Promise<GateResult[]> {
  const { checkpoint, plan, formats: ours } = setup;
  const text = fillerTokens(Math.min(gateTokens, plan.limits.context), checkpoint.config.vocab);
  const backend = await chooseBackend('cpu', setup.onNotice);
  const { name: instructionSet } = float32InstructionSet();
  const results: GateResult[] = [];
  for (const weights of new Set([ours.quant, ...weightsOf(peers)])) {
    const formats = formatsWith(weights, setup);
    const choice: Choice = { backend, schedule: 'looped', threads: physicalCores(), formats, instructionSet };
    await withVariant(setup, choice, async (judge) => {
      const expected = await logitsBehind(judge, text);
      const pass = async (source: LogitsSource, identity: Identity, limits: GateLimits): Promise<void> => {
        stopIfAsked(setup);
        results.push({ identity, ...gateOf(await logitsBehind(source, text), expected, limits) });
      };
      if (formats === ours) for (const variant of variants) await pass(variant, variant.identity, gateLimits);
      const same = withWeights(weights, peers);
      for (const { peer, identity } of peerVariants(same, setup)) await pass(peer, identity, peerGateLimits);
    });
  }
  return results;
}

function weightsOf(peers: readonly Peer[]): Set<DType> {
  return new Set(peers.map(({ info }) => info.weights));
}

function withWeights(weights: DType, peers: readonly Peer[]): Peer[] {
  return peers.filter(({ info }) => info.weights === weights);
}
