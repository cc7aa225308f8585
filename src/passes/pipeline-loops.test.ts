import { describe, expect, it } from 'vitest';
import { modelConfig, modelNames, smallLimits } from '../../tests/support/models.js';
import { inferKernel, inferLoop, loopScope } from '../ir/infer.js';
import type { Loop, LoopPipeline, Name, Program, Tensor } from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import { loopsOf } from '../ir/visit.js';
import type { Memory } from './pass.js';
import { compileModel } from './pipeline.js';

const limits = smallLimits;
const cache = { name: 'L2', bytes: 1 << 20 };
const rest = { name: 'DRAM', bytes: 1 << 40 };

function compiled(name: (typeof modelNames)[number], memories: readonly Memory[], tileBytes = 4096): Program {
  const capabilities = { memories, tileBytes, defaultWorkers: 2 };
  const { plan } = compileModel(modelConfig(name), { schedule: 'response', limits, capabilities });
  return plan.response!;
}

function loopOver(program: Program, over: string): Loop & { pipeline: LoopPipeline } {
  const loop = program.kernels.flatMap(({ body }) => [...loopsOf(body)]).find((candidate) => candidate.over === over)!;
  return { ...loop, pipeline: loop.pipeline! };
}

/** Types inside the loop over layers, by way of the loop over tokens around it. */
function typesInside(program: Program): ReadonlyMap<Name, Tensor> {
  const outer = loopOver(program, 'token');
  return loopScope(loopOver(program, 'layer'), inferLoop(outer, inferKernel(program.kernels[0]!)));
}

describe.each(modelNames)('pipelineLoops on %s', (name) => {
  const program = compiled(name, [cache, rest]);
  const loop = loopOver(program, 'layer');

  it('streams every stacked weight once, in the order of its use', () => {
    const reads: { name: Name; stage: number }[] = [];
    let index = 0;
    loop.body.plan!.stages.forEach(({ statements }, stage) => {
      for (const statement of loop.body.statements.slice(index, (index += statements))) {
        if (statement.kind === 'loop') throw new Error('a loop in a layer');
        for (const read of Object.values<Name>(statement.reads)) reads.push({ name: read, stage });
      }
    });
    const weights = loop.bindings.flatMap((binding) =>
      binding.kind === 'stacked' && binding.access === 'read' ? [binding.name] : [],
    );
    const expected = reads.filter(
      ({ name: read }, at) => weights.includes(read) && reads.findIndex((other) => other.name === read) === at,
    );
    expect(loop.pipeline.stream.map(({ name: read, stage }) => ({ name: read, stage }))).toEqual(expected);
    expect(expected.length).toBe(weights.length);
  });

  it('counts the bytes of what streams and of what is carried', () => {
    const types = typesInside(program);
    for (const { name: read, bytes } of loop.pipeline.stream) {
      expect(bytes).toBe(tensorBytes(types.get(read)!, limits));
    }
    const { hidden } = modelConfig(name);
    const [buffer, ...more] = loop.pipeline.buffers;
    expect(more).toEqual([]);
    // The response has as many rows as samples.
    expect(buffer).toMatchObject({ copies: 2, bytes: limits.samples * hidden * 4, memory: 'L2' });
  });
});

describe('pipelineLoops', () => {
  it('puts buffers into the nearest memory that holds both copies', () => {
    const { hidden } = modelConfig('llama');
    const bytes = 2 * limits.samples * hidden * 4;
    const memoryOf = (near: number): string =>
      loopOver(compiled('llama', [{ name: 'near', bytes: near }, cache]), 'layer').pipeline.buffers[0]!.memory;
    expect(memoryOf(bytes)).toBe('near');
    expect(memoryOf(bytes - 1)).toBe('L2');
  });

  it('streams as far ahead as a quarter of the nearest memory reaches, at least one tile', () => {
    const ring = (near: number): [number, number] => {
      const { depth, slots } = loopOver(
        compiled('llama', [{ name: 'near', bytes: near }, cache], 1024),
        'layer',
      ).pipeline;
      return [depth, slots];
    };
    expect(ring(64 * 1024)).toEqual([16, 17]);
    expect(ring(1)).toEqual([1, 2]);
  });

  it('carries what recurs through the loop over tokens, and streams nothing there', () => {
    const { pipeline, bindings } = loopOver(compiled('llama', [cache, rest]), 'token');
    expect(pipeline.stream).toEqual([]);
    const carried = bindings.flatMap((binding) => (binding.kind === 'carried' ? [binding.name] : []));
    expect(pipeline.buffers.map(({ name }) => name).sort()).toEqual(carried.sort());
    expect(carried.sort()).toEqual(['done', 'positions', 'remaining', 'tokens']);
  });
});
