/**
 * pipelineLoops: makes the outer loop of a looped kernel pipelined. Carried activations become double buffers in the
 * nearest memory that holds them; the stacked weights become one stream in the order the body consumes them, of which
 * `depth` tiles may be under way ahead, over stage borders and over the iteration border:
 *
 *   layer i   | qkv . att . o . gate/up . down |                      loads wait at every border
 *   layer i+1                                  | qkv . att . o ...
 *   -->
 *   weights   [qkv][o][gate/up][down][qkv][o][gate/up] ...            loads never wait
 *   layer i   | qkv . att . o . gate/up . down | qkv . att . o ...
 *
 * Runs after planStages, whose stages tell when a weight is consumed. Source: KL24, section "pipelined outer loop".
 */
import { inferRegion, loopScope } from '../ir/infer.js';
import type {
  Kernel,
  Loop,
  LoopPipeline,
  Name,
  Program,
  Region,
  Statement,
  StreamedRead,
  Tensor,
} from '../ir/program.js';
import { tensorBytes } from '../ir/tensor.js';
import { statementsByStage, usesOf } from '../ir/visit.js';
import { assert, defined } from '../util/assert.js';
import { formatBytes } from '../util/units.js';
import type { PassContext, PassResult } from './pass.js';

export function pipelineLoops(program: Program, context: PassContext): PassResult {
  const notes: string[] = [];
  const pipelineRegion = (region: Region, outer: ReadonlyMap<Name, Tensor>): Region => {
    const types = inferRegion(region, outer);
    const statements = region.statements.map((statement): Statement => {
      if (statement.kind !== 'loop') return statement;
      const inner = loopScope(statement, types);
      const pipeline = planPipeline(statement, inner, program, context);
      notes.push(describe(statement, pipeline));
      return { ...statement, body: pipelineRegion(statement.body, inner), pipeline };
    });
    return { ...region, statements };
  };
  const kernels = program.kernels.map((kernel): Kernel => {
    const types = new Map(kernel.params.map((param) => [param.name, param.tensor]));
    return { ...kernel, body: pipelineRegion(kernel.body, types) };
  });
  return { program: { ...program, kernels }, report: { pass: 'pipelineLoops', notes, refusals: [] } };
}

function planPipeline(
  loop: Loop,
  inner: ReadonlyMap<Name, Tensor>,
  program: Program,
  context: PassContext,
): LoopPipeline {
  const { memories, tileBytes } = context;
  const nearest = defined(memories[0], 'a memory of the machine');
  const copies = 2;
  const buffers = loop.bindings.flatMap((binding) => {
    if (binding.kind !== 'carried') return [];
    const bytes = tensorBytes(defined(inner.get(binding.name), binding.name), program.limits);
    const memory = memories.find((candidate) => candidate.bytes >= copies * bytes) ?? memories.at(-1);
    return [{ name: binding.name, copies, bytes, memory: defined(memory, 'a memory of the machine').name }];
  });
  // A quarter of the nearest memory for what is under way: the rest is for activations and what is being consumed.
  const depth = Math.max(1, Math.floor(nearest.bytes / 4 / tileBytes));
  return { buffers, stream: streamOf(loop, inner, program), tileBytes, depth, slots: depth + 1 };
}

/** The stacked weights in the order in which the stages of the body read them. */
function streamOf(loop: Loop, inner: ReadonlyMap<Name, Tensor>, program: Program): StreamedRead[] {
  const plan = loop.body.plan;
  assert(plan !== undefined, 'pipelineLoops runs after planStages');
  const stacked = new Set(
    loop.bindings.flatMap((binding) =>
      binding.kind === 'stacked' && binding.access === 'read' && inner.get(binding.name)?.role === 'weight'
        ? [binding.name]
        : [],
    ),
  );
  const stream: StreamedRead[] = [];
  statementsByStage(loop.body, plan.stages).forEach((statements, index) => {
    for (const { name } of statements.flatMap(usesOf)) {
      if (!stacked.delete(name)) continue;
      const bytes = tensorBytes(defined(inner.get(name), name), program.limits);
      stream.push({ name, stage: index, bytes });
    }
  });
  return stream;
}

function describe(loop: Loop, pipeline: LoopPipeline): string {
  const buffers = pipeline.buffers.map(({ name, memory }) => `${name} (${memory})`).join(', ');
  const perIteration = pipeline.stream.reduce((sum, { bytes }) => sum + bytes, 0);
  const stream =
    pipeline.stream.length === 0
      ? 'streams no weights of its own'
      : `streams ${formatBytes(perIteration)} of weights per iteration, ${pipeline.depth} tiles of ${formatBytes(pipeline.tileBytes)} ahead`;
  return `loop over ${loop.over}: double buffers ${buffers}; ${stream}`;
}
