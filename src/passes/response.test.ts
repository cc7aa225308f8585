import { describe, expect, it } from 'vitest';
import { passContext } from '../../tests/support/layered-program.js';
import type { Loop, Program } from '../ir/program.js';
import { loopsOf } from '../ir/visit.js';
import { verify } from '../ir/verify.js';
import { buildProgram } from '../models/build.js';
import { findPreset } from '../models/presets.js';
import { UsageError } from '../util/errors.js';
import { fuseLayers } from './fuse-layers.js';
import { loopCalls } from './loop-calls/index.js';
import { repeatTokens } from './repeat-tokens.js';
import { loopTokens } from './response.js';

const limits = { rows: 8, samples: 4, slots: 2, context: 64 };

function schedules(preset: string): Program[] {
  const operator = buildProgram(findPreset(preset)!.config, { limits });
  const layer = fuseLayers(operator, passContext).program;
  return [operator, layer, loopCalls(layer, passContext).program];
}

describe('repeatTokens', () => {
  it('hands on from copy to copy what recurred through the host', () => {
    const step = schedules('tinystories-15m')[2]!;
    const repeated = repeatTokens(step, 3);
    verify(repeated);
    expect(repeated.calls.length).toBe(12);
    expect(repeated.limits).toMatchObject({ rows: 4, samples: 4 });
    expect(repeated.outputs).toEqual(['emitted', 'emitted.t1', 'emitted.t2']);
    expect(repeated.recurrence).toContainEqual({ output: 'next_tokens.t2', input: 'tokens' });
    const embedArguments = [0, 4, 8].map((call) =>
      repeated.calls[call]!.args.map((a) => (a as { value: string }).value),
    );
    expect(embedArguments.map((names) => names.find((name) => name.includes('tokens')))).toEqual([
      'tokens',
      'next_tokens',
      'next_tokens.t1',
    ]);
    expect(embedArguments.map((names) => names.find((name) => name.includes('embedding')))).toEqual(
      Array(3).fill('embedding'),
    );
    expect(repeated.values.some(({ tensor }) => tensor.shape.includes('samples'))).toBe(false);
  });
});

describe('loopTokens', () => {
  it.each(['llama-3.1-8b', 'gemma-2-2b', 'tinystories-15m'])('makes one call of %s, from every schedule', (preset) => {
    for (const step of schedules(preset)) {
      const { program, report } = loopTokens(5)(step, passContext);
      verify(program);
      expect(report.refusals).toEqual([]);
      expect(program.schedule).toBe('response');
      expect(program.calls.map(({ kernel }) => kernel)).toEqual(['response']);
      const [loop, inner] = [...loopsOf(program.kernels[0]!.body)] as [Loop, Loop | undefined];
      expect(loop).toMatchObject({ over: 'token', trip: 5, until: 'next_done' });
      expect(loop.body.segments.length).toBe(step.calls.length);
      expect(inner?.over).toBe(step.schedule === 'looped' ? 'layer' : undefined);
      const kinds = Object.fromEntries(loop.bindings.map((binding) => [binding.name, binding]));
      for (const name of ['tokens', 'positions', 'remaining', 'done']) {
        expect(kinds[name]).toMatchObject({ kind: 'carried', next: `next_${name}`, final: `next_${name}` });
      }
      expect(kinds['emitted']).toMatchObject({ kind: 'stacked', access: 'write' });
      expect(kinds['history']).toMatchObject({ kind: 'invariant', access: 'update' });
      expect(kinds['keys']).toMatchObject({ kind: 'invariant', access: 'update' });
      expect(kinds['slots']).toMatchObject({ kind: 'invariant', access: 'read' });
      expect(loop.bindings.filter(({ kind }) => kind === 'carried').length).toBe(4);
    }
  });

  it('wants at least two tokens', () => {
    expect(() => loopTokens(1)).toThrow(UsageError);
    expect(() => loopTokens(NaN)).toThrow(UsageError);
  });
});
