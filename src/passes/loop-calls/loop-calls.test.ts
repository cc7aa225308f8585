import { describe, expect, it } from 'vitest';
import {
  dense,
  layeredProgram,
  matrix,
  passContext,
  residualLayer,
  width,
} from '../../../tests/support/layered-program.js';
import type { Access, Binding, Loop, Operator, Program, Tensor } from '../../ir/program.js';
import { verify } from '../../ir/verify.js';
import { ProgramBuilder } from '../../models/program-builder.js';
import { makeOperator as op } from '../../ops/make.js';
import { fuseLayers } from '../fuse-layers.js';
import { loopCalls } from './index.js';

/** Kernel names of the calls, and what was refused as `reason@call`. */
function looped(program: Program): { calls: string[]; refusals: string[]; program: Program; details: string[] } {
  verify(program);
  const result = loopCalls(program, passContext);
  verify(result.program);
  return {
    program: result.program,
    calls: result.program.calls.map(({ kernel }) => kernel),
    refusals: result.report.refusals.map(({ reason, call }) => `${reason}@${call}`),
    details: result.report.refusals.map(({ detail }) => detail),
  };
}

function fused(program: Program): Program {
  verify(program);
  return fuseLayers(program, passContext).program;
}

function loopOf(program: Program, kernel = 'decoder'): Loop {
  const [statement] = program.kernels.find(({ name }) => name === kernel)!.body.statements;
  if (statement?.kind !== 'loop') throw new Error(`${kernel} has no loop`);
  return statement;
}

function kindOf(loop: Loop, name: string): Binding['kind'] | undefined {
  return loop.bindings.find((binding) => binding.name === name)?.kind;
}

function addTail(x: string, y = 'out'): Operator {
  return op('add', { a: x, b: x }, { y });
}

describe('the loop', () => {
  it('takes in all layers, at operator and at layer level', () => {
    const program = layeredProgram({ layers: 5, layer: residualLayer });
    for (const [source, period] of [
      [program, 2],
      [fused(program), 1],
    ] as const) {
      const result = looped(source);
      expect(result.calls).toEqual(['embed', 'decoder']);
      expect(result.refusals).toEqual([]);
      expect(result.program.schedule).toBe('looped');
      const loop = loopOf(result.program);
      expect(loop.trip).toBe(5);
      expect(loop.over).toBe('layer');
      expect(loop.bindings.map(({ kind, name }) => [kind, name])).toEqual([
        ['carried', 'x'],
        ['stacked', 'w'],
      ]);
      expect(loop.body.segments.length).toBe(2);
      expect(result.program.kernels.find(({ name }) => name === 'decoder')!.body.segments[0]!.kernel).toBe(
        period === 1 ? 'layer' : 'decoder',
      );
      const stack = result.program.calls[1]!.args.find(({ kind }) => kind === 'stack');
      expect(stack).toEqual({ kind: 'stack', values: ['w.0', 'w.1', 'w.2', 'w.3', 'w.4'] });
      const temporaries = result.program.values.filter(({ origin }) => origin.kind === 'temporary');
      expect(temporaries.map(({ name }) => name)).toEqual(['x.0', 'x.5']);
    }
  });

  it('gives no final value where nobody reads the last one', () => {
    const program = layeredProgram({ layers: 3, layer: residualLayer });
    const loop = loopOf(looped({ ...program, outputs: [] }).program);
    expect(loop.bindings.find(({ kind }) => kind === 'carried')).not.toHaveProperty('final');
    const read = loopOf(looped(program).program);
    expect(read.bindings.find(({ kind }) => kind === 'carried')).toHaveProperty('final');
  });

  it('stacks states that are changed in place', () => {
    const state: Tensor = { dtype: 'i32', shape: [2, 8], role: 'state' };
    const builder = new ProgramBuilder('states', { rows: 4, samples: 4, slots: 2, context: 8 });
    for (const name of ['tokens', 'slots', 'positions']) {
      builder.input(name, { dtype: 'i32', shape: ['rows'], role: 'index' });
    }
    for (let layer = 0; layer < 3; layer++) {
      builder.state(`history.${layer}`, state);
      const reads = { tokens: 'tokens', slots: 'slots', positions: 'positions' };
      builder.call('append', layer, [op('appendToken', reads, {}, { history: `history.${layer}` })]);
    }
    const result = looped(builder.finish([], []));
    const access = (name: string): Access | undefined =>
      result.program.kernels[0]!.params.find((param) => param.name === name)?.access;
    expect(result.calls).toEqual(['decoder']);
    expect(kindOf(loopOf(result.program), 'tokens')).toBe('invariant');
    expect(kindOf(loopOf(result.program), 'history')).toBe('stacked');
    expect(access('history')).toBe('update');
  });

  it('finds a period of two where layers alternate, and leaves the odd one out', () => {
    const alternating = (builder: ProgramBuilder, layer: number): Operator[][] => {
      const [x, next] = [`x.${layer}`, `x.${layer + 1}`];
      const half = [dense(builder, `w.${layer}`, x, `h.${layer}`)];
      return [[...half, op(layer % 2 === 0 ? 'siluMul' : 'geluMul', { gate: `h.${layer}`, up: x }, { y: next })]];
    };
    const even = looped(layeredProgram({ layers: 6, layer: alternating }));
    expect(even.calls).toEqual(['embed', 'decoder']);
    expect(even.refusals).toEqual([]);
    expect(loopOf(even.program).trip).toBe(3);
    expect(loopOf(even.program).body.segments.map(({ kernel }) => kernel)).toEqual(['part_0', 'part_0_2']);

    const odd = looped(layeredProgram({ layers: 7, layer: alternating }));
    expect(odd.calls).toEqual(['embed', 'decoder', 'part_0']);
    expect(odd.refusals).toEqual(['run-too-short@7']);
  });

  it('keeps what comes before and after outside', () => {
    const layers = layeredProgram({ layers: 3, layer: residualLayer, tail: [[addTail('x.3')]], outputs: ['out'] });
    expect(looped(fused(layers)).calls).toEqual(['embed', 'decoder', 'tail']);
  });

  it('has one value where all layers share a weight, and a period where neighbours do', () => {
    const tied = (weightOf: (layer: number) => string) =>
      layeredProgram({
        layers: 4,
        declare: (builder) => {
          for (const weight of ['w.0', 'w.1', 'w.2', 'w.3']) builder.weight(weight, matrix(width, width), weight);
        },
        layer: (_, layer) => [[op('linear', { x: `x.${layer}`, weight: weightOf(layer) }, { y: `x.${layer + 1}` })]],
      });
    const all = looped(tied(() => 'w.0'));
    expect(all.calls).toEqual(['embed', 'decoder']);
    expect(kindOf(loopOf(all.program), 'w')).toBe('invariant');

    const neighbours = looped(tied((layer) => `w.${Math.floor(layer / 2)}`));
    expect(neighbours.calls).toEqual(['embed', 'decoder']);
    expect(loopOf(neighbours.program).trip).toBe(2);
    expect(kindOf(loopOf(neighbours.program), 'w')).toBe('stacked');

    // w.0 w.1 w.1 w.0: no period makes one value or distinct ones of it.
    const crossed = looped(tied((layer) => ['w.0', 'w.1', 'w.1', 'w.0'][layer]!));
    expect(crossed.calls).toEqual(['embed', 'decoder', 'part_0', 'part_0']);
    expect(crossed.refusals[0]).toBe('aliases@3');
  });

  it('loops two chains that take turns, two layers at a time', () => {
    const start = ['x.0', 'y'];
    const program = layeredProgram({
      layers: 6,
      declare: (builder) => builder.input('y', { dtype: 'f32', shape: ['rows', width], role: 'activation' }),
      layer: (builder, layer) => [[dense(builder, `w.${layer}`, start[layer] ?? `x.${layer - 1}`, `x.${layer + 1}`)]],
      outputs: ['x.5', 'x.6'],
    });
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'decoder']);
    expect(loopOf(result.program).trip).toBe(3);
    expect(loopOf(result.program).bindings.map(({ kind }) => kind)).toEqual([
      'carried',
      'stacked',
      'carried',
      'stacked',
    ]);
  });

  it('stacks what every layer writes for the host', () => {
    const program = layeredProgram({
      layers: 3,
      layer: residualLayer,
      outputs: ['h.0', 'h.1', 'h.2', 'x.3'],
    });
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'decoder']);
    const loop = loopOf(result.program);
    expect(loop.bindings.find(({ name }) => name === 'h')).toMatchObject({ kind: 'stacked', access: 'write' });
  });
});

describe('refusals', () => {
  /** Five layers, the one in the middle by hand. */
  function middle(layer: (builder: ProgramBuilder, layer: number) => Operator[][]): Program {
    const layers = (builder: ProgramBuilder, at: number): Operator[][] =>
      at === 2 ? layer(builder, at) : residualLayer(builder, at);
    return fused(layeredProgram({ layers: 5, layer: layers }));
  }

  it('body-differs: a layer of other operators', () => {
    const program = middle((builder, layer) => [
      [dense(builder, `w.${layer}`, `x.${layer}`, `h.${layer}`)],
      [op('siluMul', { gate: `x.${layer}`, up: `h.${layer}` }, { y: `x.${layer + 1}` })],
    ]);
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'decoder', 'layer_2', 'decoder_2']);
    expect(result.refusals).toEqual(['body-differs@3']);
    expect(result.details[0]).toBe('layer 2 has siluMul where layer 0 has add');
    const [refusal] = loopCalls(program, passContext).report.refusals;
    expect(refusal).toMatchObject({ layer: 2, call: 3 });
  });

  it('body-differs: the same operators in another dataflow', () => {
    const program = middle((builder, layer) => [
      [dense(builder, `w.${layer}`, `x.${layer}`, `h.${layer}`)],
      [op('add', { a: `h.${layer}`, b: `x.${layer}` }, { y: `x.${layer + 1}` })],
    ]);
    expect(looped(program).refusals).toEqual(['body-differs@3']);
  });

  it('differs-in-shape: a layer that is wider inside', () => {
    const wide = (builder: ProgramBuilder, layer: number, inner: number): Operator[][] => [
      [dense(builder, `up.${layer}`, `x.${layer}`, `h.${layer}`, matrix(inner, width))],
      [dense(builder, `down.${layer}`, `h.${layer}`, `x.${layer + 1}`, matrix(width, inner))],
    ];
    const program = fused(
      layeredProgram({ layers: 4, layer: (builder, layer) => wide(builder, layer, layer === 2 ? 12 : 8) }),
    );
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'decoder', 'layer_2', 'layer']);
    expect(result.refusals).toEqual(['differs-in-shape@3', 'run-too-short@4']);
    expect(result.details[0]).toBe('up is f32[12, 4] in layer 2, f32[8, 4] in layer 0');
  });

  it('differs-in-dtype: a layer that is stored in another format', () => {
    const program = fused(
      layeredProgram({
        layers: 4,
        layer: (builder, layer) => [
          [
            dense(
              builder,
              `w.${layer}`,
              `x.${layer}`,
              `x.${layer + 1}`,
              matrix(width, width, layer === 0 ? 'f32' : 'bf16'),
            ),
          ],
        ],
      }),
    );
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'layer', 'decoder']);
    expect(result.refusals).toEqual(['differs-in-dtype@1']);
  });

  it('attribute-differs: an odd layer at the start', () => {
    const program = fused(
      layeredProgram({
        layers: 4,
        layer: (builder, layer) => {
          builder.weight(`w.${layer}`, { dtype: 'f32', shape: [width], role: 'weight' }, `w.${layer}`);
          const attributes = { eps: layer === 0 ? 1e-5 : 1e-6, offset: 0 };
          const reads = { x: `x.${layer}`, weight: `w.${layer}` };
          return [[op('rmsNorm', reads, { y: `x.${layer + 1}` }, {}, attributes)]];
        },
      }),
    );
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'layer', 'decoder']);
    expect(result.refusals).toEqual(['attribute-differs@1']);
    expect(result.details[0]).toBe('rmsNorm has eps 0.00001 in layer 0, 0.000001 in layer 1');
  });

  it('carried-through-different-parameters: two activations that change places', () => {
    // (x, y) -> (x', y'); layer 1 reads them the other way round.
    const program = layeredProgram({
      layers: 4,
      declare: (builder) => builder.input('y.0', { dtype: 'f32', shape: ['rows', width], role: 'activation' }),
      layer: (builder, layer) => {
        const [first, second] = layer === 1 ? ['y', 'x'] : ['x', 'y'];
        return [
          [
            dense(builder, `w.${layer}`, `${first}.${layer}`, `x.${layer + 1}`),
            op('add', { a: `x.${layer + 1}`, b: `${second}.${layer}` }, { y: `y.${layer + 1}` }),
          ],
        ];
      },
      outputs: ['x.4', 'y.4'],
    });
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'part_0', 'decoder']);
    expect(result.refusals).toEqual(['carried-through-different-parameters@1']);
    expect(result.details[0]).toBe('x is y_out of the iteration before, but in layer 2 it is x_out');
  });

  it('read-outside-the-run: the output of the first layer is read by the last one too', () => {
    const program = fused(
      layeredProgram({
        layers: 5,
        layer: (builder, layer) =>
          layer < 4
            ? residualLayer(builder, layer)
            : [[dense(builder, 'w.4', 'x.4', 'h.4')], [op('add', { a: 'x.1', b: 'h.4' }, { y: 'x.5' })]],
      }),
    );
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'layer', 'decoder', 'layer_2']);
    expect(loopOf(result.program).trip).toBe(3);
    expect(result.refusals).toEqual(['read-outside-the-run@1', 'body-differs@5']);
    expect(result.details[0]).toBe('x.1, written in layer 0, is also read by layer_2 of layer 4');
  });

  it('read-outside-the-run: the host reads what is carried', () => {
    const program = fused(layeredProgram({ layers: 4, layer: residualLayer, outputs: ['x.2', 'x.4'] }));
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'decoder', 'decoder_2']);
    expect(result.refusals).toEqual(['read-outside-the-run@3']);
  });

  it('mixed-binding: a layer that does not continue from the one before', () => {
    const program = layeredProgram({
      layers: 4,
      declare: (builder) => builder.input('other', { dtype: 'f32', shape: ['rows', width], role: 'activation' }),
      layer: (builder, layer) => [
        [dense(builder, `w.${layer}`, layer === 2 ? 'other' : `x.${layer}`, `x.${layer + 1}`)],
      ],
      outputs: ['x.2', 'x.4'],
    });
    expect(looped(program).refusals[0]).toBe('mixed-binding@3');
  });

  it('aliases: a state that one layer updates and another one reads', () => {
    const cache: Tensor = { dtype: 'f32', shape: [2, 1, 8, width], role: 'state' };
    const program = layeredProgram({
      layers: 3,
      declare: (builder) => {
        for (const name of ['slots', 'positions'])
          builder.input(name, { dtype: 'i32', shape: ['rows'], role: 'index' });
        for (let layer = 0; layer < 4; layer++) {
          builder.state(`keys.${layer}`, cache);
          builder.state(`values.${layer}`, cache);
        }
      },
      layer: (_, layer) => {
        const rows = { slots: 'slots', positions: 'positions' };
        const [keys, values] = [`keys.${layer}`, `values.${layer}`];
        // Attends to the cache of the next layer, which that one updates.
        const other = { keys: `keys.${layer + 1}`, values: `values.${layer + 1}` };
        const attributes = { heads: 1, scale: 1, softcap: 0, window: 0 };
        return [
          [
            op('appendKv', { k: `x.${layer}`, v: `x.${layer}`, ...rows }, {}, { keys, values }),
            op('attention', { q: `x.${layer}`, ...other, ...rows }, { y: `x.${layer + 1}` }, {}, attributes),
          ],
        ];
      },
    });
    const result = looped(program);
    expect(result.calls).toEqual(['embed', 'part_0', 'part_0', 'part_0']);
    expect(result.refusals).toEqual(['aliases@1', 'aliases@2', 'run-too-short@3']);
  });

  it('run-too-short: one layer is no run', () => {
    expect(looped(fused(layeredProgram({ layers: 1, layer: residualLayer }))).refusals).toEqual(['run-too-short@1']);
  });
});
