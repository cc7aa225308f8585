import { describe, expect, it } from 'vitest';
import { gateOf, peerGateLimits, type Gate } from './gate.js';

describe('gate', () => {
  const { log } = Math;
  const text = [0, 1];
  /** Probabilities 1/2 and 1/2 behind both tokens. */
  const expected = { logits: [Float32Array.of(0, 0), Float32Array.of(3, 3)] };
  const gateWith = (...logits: number[][]): Gate =>
    gateOf({ text, logits: logits.map((row) => Float32Array.from(row)) }, expected);

  it('passes what differs by a constant, which no probability shows', () => {
    expect(gateWith([7, 7], [0, 0])).toMatchObject({ gate: 'passed', meanKl: expect.closeTo(0, 12) as number });
  });

  it('fails other distributions, by the divergence and by the likelihood of the text', () => {
    // 3/4 and 1/4 behind the first token, which is followed by token 1: by hand.
    const failed = gateWith([log(3), 0], [3, 3]);
    expect(failed.gate).toBe('failed');
    expect(failed.meanKl).toBeCloseTo((log(2 / 3) + log(2)) / 4, 6);
    expect(failed.nllShift).toBeCloseTo(log(2) / 2, 6);
  });

  it('takes other limits', () => {
    const rounded = { text, logits: [Float32Array.of(0.01, 0), Float32Array.of(3, 3)] };
    expect(gateOf(rounded, expected).gate).toBe('failed');
    expect(gateOf(rounded, expected, peerGateLimits).gate).toBe('passed');
  });

  it('fails what is no number', () => {
    expect(gateWith([Number.NaN, 0], [3, 3]).gate).toBe('failed');
  });
});
