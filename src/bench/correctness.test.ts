import { describe, expect, it } from 'vitest';
import { KloopError } from '../util/errors.js';
import { compareWithPeer, relativeDifference, requireEqual, type Claim } from './correctness.js';
import type { Peer } from './peer.js';
import type { Variant } from './variant.js';

function claim(schedule: string, threads: number, tokens: readonly number[], logits: readonly number[]): Claim {
  return {
    identity: { engine: 'kloop', schedule, threads },
    transcript: { tokens, logits: Float32Array.from(logits) },
  };
}

describe('requireEqual', () => {
  it('is content with equal tokens, and equal logits of as many threads', () => {
    requireEqual([]);
    requireEqual([
      claim('operator', 1, [3, 4], [1, 2]),
      claim('looped', 1, [3, 4], [1, 2]),
      claim('looped', 2, [3, 4], [1, 2.0000002]),
    ]);
  });

  it('names who differs, and where', () => {
    const differ = (): void => requireEqual([claim('operator', 1, [3, 4], [1]), claim('response', 2, [3, 5], [1])]);
    expect(differ).toThrow(KloopError);
    expect(differ).toThrow(
      'operator with 1 thread and response with 2 threads make different tokens, first at token 1',
    );
    expect(() => requireEqual([claim('operator', 1, [3, 4], [1]), claim('layer', 1, [3], [1])])).toThrow(
      'first at token 1',
    );
  });

  it('compares bits: a zero has a sign, and NaN equals itself', () => {
    requireEqual([claim('operator', 1, [3], [NaN]), claim('layer', 1, [3], [NaN])]);
    const differ = (): void => requireEqual([claim('operator', 1, [3], [5, 0, 1]), claim('layer', 1, [3], [5, -0, 1])]);
    expect(differ).toThrow('1 of 3 differ, first number 1');
  });

  it('compares logits with the first variant of as many threads', () => {
    const claims = [
      claim('operator', 1, [3], [1]),
      claim('operator', 2, [3], [1.5]),
      claim('response', 2, [3], [1.25]),
    ];
    expect(() => requireEqual(claims)).toThrow(
      'operator with 2 threads and response with 2 threads make the same tokens',
    );
  });
});

describe('compareWithPeer', () => {
  const prompt = [1, 2];
  const transcript = { tokens: [5, 6, 7], logits: new Float32Array() };

  /** Ours and a peer whose logits are `distance` apart, over a range of 2; both write down what was asked. */
  function sides(
    theirTokens: readonly number[],
    distance: number,
  ): { variant: Variant; peer: Peer; asked: number[][] } {
    const asked: number[][] = [];
    const answer = (offset: number) => (tokens: readonly number[]) => {
      asked.push([...tokens]);
      return Promise.resolve(Float32Array.of(-1, offset, 1));
    };
    const variant = { logits: answer(0) } as unknown as Variant;
    const greedy = (): Promise<object> => Promise.resolve({ tokens: theirTokens });
    const peer = { info: { kind: { engine: 'pytorch' } }, greedy, logits: answer(distance) };
    return { variant, peer: peer as unknown as Peer, asked };
  }

  it('reports equal tokens and how far the logits are apart', async () => {
    const { variant, peer, asked } = sides([5, 6, 7], 0.5);
    const agreement = await compareWithPeer(variant, peer, prompt, transcript, { quant: 'f32', kv: 'bf16' });
    expect(agreement).toMatchObject({ tokens: 3, equalTokens: 3, logitDifference: 0.25, tolerance: 2e-3 });
    expect(asked).toEqual([
      [1, 2, 5, 6],
      [1, 2, 5, 6],
    ]);
  });

  it('accepts another token where the logits are as close as the format allows', async () => {
    const { variant, peer, asked } = sides([5, 9, 7], 0.05);
    const agreement = await compareWithPeer(variant, peer, prompt, transcript, { quant: 'q8_0', kv: 'bf16' });
    expect(agreement).toMatchObject({ equalTokens: 1, logitDifference: expect.closeTo(0.025, 6) as number });
    expect(asked).toEqual([
      [1, 2, 5],
      [1, 2, 5],
    ]);
  });

  it('fails where they are not', async () => {
    const { variant, peer } = sides([5, 9, 7], 0.05);
    const comparing = compareWithPeer(variant, peer, prompt, transcript, { quant: 'f32', kv: 'bf16' });
    await expect(comparing).rejects.toThrow(
      'PyTorch makes another token at 1 of 3, and its logits differ by 0.025 of their range',
    );
  });

  it('fails on logits that are no numbers', async () => {
    const { variant, peer } = sides([9, 9, 9], NaN);
    await expect(compareWithPeer(variant, peer, prompt, transcript, { quant: 'q4_0', kv: 'bf16' })).rejects.toThrow(
      KloopError,
    );
  });
});

describe('relativeDifference', () => {
  it('is the largest difference over the range of the first', () => {
    expect(relativeDifference(Float32Array.of(0, 4, 2), Float32Array.of(1, 4, 4))).toBe(0.5);
    expect(relativeDifference(Float32Array.of(0, 4), Float32Array.of(0, 4, 5))).toBe(Infinity);
  });
});
