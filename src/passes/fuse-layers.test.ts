import { describe, expect, it } from 'vitest';
import { dense, layeredProgram, matrix, passContext, residualLayer } from '../../tests/support/layered-program.js';
import type { Program } from '../ir/program.js';
import { verify } from '../ir/verify.js';
import { buildProgram } from '../models/build.js';
import { findPreset } from '../models/presets.js';
import { makeOperator as op } from '../ops/make.js';
import { fuseLayers } from './fuse-layers.js';

function fuse(program: Program): { program: Program; notes: readonly string[] } {
  verify(program);
  const { program: fused, report } = fuseLayers(program, passContext);
  verify(fused);
  expect(report.refusals).toEqual([]);
  return { program: fused, notes: report.notes };
}

const limits = { rows: 8, samples: 8, slots: 2, context: 64 };

describe('fuseLayers', () => {
  it('makes 35 calls of the 323 of Llama 3.1 8B, of one kernel', () => {
    const program = buildProgram(findPreset('llama-3.1-8b')!.config, { limits });
    expect(program.calls.length).toBe(323);
    const fused = fuse(program);
    expect(fused.program.calls.length).toBe(35);
    expect(fused.program.schedule).toBe('layer');
    expect(fused.program.kernels.map(({ name }) => name)).toEqual(['embed', 'layer', 'lm_head', 'sample']);
    expect(fused.notes).toEqual(['32 decoder layers share 1 kernel']);
    const layer = fused.program.kernels.find(({ name }) => name === 'layer')!;
    expect(layer.body.segments.length).toBe(10);
    expect(fused.program.calls[7]!.origin).toEqual({ layer: 6 });
    // What stays inside a layer is no value any more; x.0 to x.32 are.
    const temporaries = fused.program.values.filter(({ origin }) => origin.kind === 'temporary');
    expect(temporaries.filter(({ name }) => /^x\.\d+$/.test(name)).length).toBe(33);
    expect(temporaries.filter(({ name }) => /^(h|gate|q_rot)\./.test(name))).toEqual([]);
  });

  it('makes two kernels where local and global attention alternate', () => {
    const fused = fuse(buildProgram(findPreset('gemma-2-2b')!.config, { limits }));
    expect(fused.program.calls.slice(1, 5).map(({ kernel }) => kernel)).toEqual([
      'layer',
      'layer_2',
      'layer',
      'layer_2',
    ]);
    expect(fused.notes).toEqual(['26 decoder layers share 2 kernels']);
  });

  it('keeps a value that is read outside its layer, and drops what nobody mentions', () => {
    const program = layeredProgram({
      layers: 2,
      layer: residualLayer,
      declare: (builder) => builder.weight('unused', matrix(2, 2), 'unused'),
      tail: [[op('add', { a: 'h.0', b: 'x.2' }, { y: 'out' })]],
      outputs: ['out'],
    });
    const { program: fused } = fuse(program);
    expect(fused.calls.map(({ kernel }) => kernel)).toEqual(['embed', 'layer', 'layer_2', 'tail']);
    const names = fused.values.map(({ name }) => name);
    expect(names).toContain('h.0');
    expect(names).not.toContain('h.1');
    expect(names).not.toContain('unused');
  });

  it('shares no kernel between layers of different shapes, and does not mind what values are called', () => {
    const program = layeredProgram({
      layers: 3,
      layer: (builder, layer) => {
        const inner = layer === 1 ? 8 : 4;
        const [up, down] = [`up_${layer}`, `down_${layer}`];
        return [
          [dense(builder, up, `x.${layer}`, `h.${layer}`, matrix(inner, 4))],
          [dense(builder, down, `h.${layer}`, `x.${layer + 1}`, matrix(4, inner))],
        ];
      },
    });
    expect(fuse(program).program.calls.map(({ kernel }) => kernel)).toEqual(['embed', 'layer', 'layer_2', 'layer']);
  });
});
