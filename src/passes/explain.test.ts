import { describe, expect, it } from 'vitest';
import { dense, layeredProgram, matrix, passContext } from '../../tests/support/layered-program.js';
import type { Program } from '../ir/program.js';
import { buildProgram } from '../models/build.js';
import { findPreset } from '../models/presets.js';
import { callsPerToken, explainProgram } from './explain.js';
import { fuseLayers } from './fuse-layers.js';
import { loopCalls } from './loop-calls/index.js';
import { loopTokens } from './response.js';
import { shard } from './shard.js';

const limits = { rows: 4, samples: 4, slots: 2, context: 32 };

function schedulesOf(preset: string, sockets: number): [Program, Program, Program, Program] {
  const operator = shard(sockets)(buildProgram(findPreset(preset)!.config, { limits }), passContext).program;
  const layer = fuseLayers(operator, passContext).program;
  const looped = loopCalls(layer, passContext).program;
  return [operator, layer, looped, loopTokens(16)(looped, passContext).program];
}

/** Lines of the schedule, without the kernels below. */
function scheduleOf(program: Program): string[] {
  const lines = explainProgram(program);
  return lines.slice(0, lines.indexOf(''));
}

describe('explainProgram', () => {
  const [operator, layer, looped, response] = schedulesOf('llama-3.1-8b', 8);

  it('folds what repeats, and counts it in full', () => {
    expect(scheduleOf(layer)).toEqual([
      'schedule layer, in lockstep on 8 sockets',
      '  x.0, rope = embed(tokens, slots, positions; 2 weights, 1 state)',
      '  for layer in 0..31:',
      '    x = layer(x, rope, slots, positions; 9 weights, 2 states)',
      '  logits = lm_head(x.32, index; 2 weights)',
      expect.stringMatching(/^ {2}next_tokens, .* = sample\(logits, /),
      'calls per token: 35',
    ]);
    const lines = scheduleOf(operator);
    expect(lines.length).toBe(2 + 1 + 10 + 2 + 1);
    expect(lines.slice(2, 5)).toEqual([
      '  for layer in 0..31:',
      '    h = attn_norm(x; 1 weight)',
      '    q, k, v = qkv(h; 3 weights)',
    ]);
    expect(lines.at(-1)).toBe('calls per token: 323');
    expect(scheduleOf(looped).slice(2)).toEqual([
      '  x.32 = decoder(x.0, rope, slots, positions; 288 weights, 64 states)',
      '  logits = lm_head(x.32, index; 2 weights)',
      expect.stringMatching(/sample/),
      'calls per token: 4',
    ]);
    expect(scheduleOf(response).at(-1)).toBe('calls: 1 per response (or per chunk of 16 tokens)');
  });

  it('shows loops in loops, with what they carry', () => {
    const lines = explainProgram(response);
    const start = lines.indexOf('kernel response: 27 operators');
    expect(lines.slice(start, start + 3)).toEqual([
      'kernel response: 27 operators',
      '  for token in 0..15, until next_done:',
      '    carried: tokens, positions, remaining, done',
    ]);
    expect(lines).toContain('    for layer in 0..31:');
    expect(lines).toContain('      carried: x');
    expect(explainProgram(operator)).toContain('kernel attn_add: allReduce, add');
    expect(lines).toContain('      attn_add     allReduce, add');
  });

  it('folds layers that alternate', () => {
    expect(scheduleOf(schedulesOf('gemma-2-2b', 1)[1]).slice(2, 5)).toEqual([
      '  for layer in 0..25 by 2:',
      expect.stringMatching(/ x = layer\(/),
      expect.stringMatching(/ x = layer_2\(/),
    ]);
  });

  it('ends with every refusal, and keeps its lines short', () => {
    const program = layeredProgram({
      layers: 3,
      layer: (builder, at) => [
        [dense(builder, `w.${at}`, `x.${at}`, `x.${at + 1}`, matrix(4, 4, at === 0 ? 'f32' : 'bf16'))],
      ],
    });
    const { program: result, report } = loopCalls(program, passContext);
    const lines = explainProgram(result, [report]);
    expect(lines.slice(-2)).toEqual([
      'not looped',
      '  loopCalls: differs-in-dtype: w is f32[4, 4] in layer 0, bf16[4, 4] in layer 1',
    ]);
    for (const stage of [operator, layer, looped, response]) {
      expect(Math.max(...explainProgram(stage).map((line) => line.length))).toBeLessThanOrEqual(100);
    }
  });

  it('counts calls', () => {
    expect([operator, layer, looped].map((program) => callsPerToken(program))).toEqual([
      { perToken: 323 },
      { perToken: 35 },
      { perToken: 4 },
    ]);
    expect(callsPerToken(response)).toEqual({ perToken: 1 / 16, perResponse: { calls: 1, tokens: 16 } });
  });
});
