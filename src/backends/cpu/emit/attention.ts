/** What the C needs to know of attention before its kernels: the block, and every shape of heads that the programs have. */
import { inferKernel, inferRegion, loopScope } from '../../../ir/infer.js';
import type { Name, Program, Region, Tensor } from '../../../ir/program.js';
import { isKind } from '../../../ir/visit.js';
import { defined } from '../../../util/assert.js';
import { bytesAtLimits } from '../../memory-map.js';
import { elementType } from './names.js';

/**
 * Positions of a block of attention. Changing it changes results in their last bits. At 128 dimensions in bf16 its keys
 * and values take 128 KiB, which the second-level cache holds; merging two blocks costs about as much as two positions.
 */
export const contextBlock = 256;

/** Positions that stand together in the KV cache (TILE in engine.h). */
const tile = 16;

/** Room for a context: whole tiles. */
export function positionsOf(context: number): number {
  return Math.ceil(context / tile) * tile;
}

/** Room of a value: a KV cache, the only state of four dimensions, has whole tiles. */
export function roomOf(tensor: Tensor, program: Program): number {
  const [slots, kvHeads, context, headDim] = tensor.shape;
  const isCache = tensor.role === 'state' && tensor.shape.length === 4 && typeof context === 'number';
  const shape = isCache ? [slots!, kvHeads!, positionsOf(context), headDim!] : tensor.shape;
  return bytesAtLimits({ ...tensor, shape }, program);
}

/** Instances of the kernel (DEFINE_ATTENTION in attention.h), each once. */
export function attentionInstances(programs: readonly Program[]): string[] {
  const shapes = programs.flatMap(({ kernels }) =>
    kernels.flatMap((kernel) => [...attentionsOf(kernel.body, inferKernel(kernel))]),
  );
  const instances = shapes.map(({ keys, heads }) => {
    const [kvHeads, dim] = [Number(keys.shape[1]), Number(keys.shape[3])];
    return `DEFINE_ATTENTION(${keys.dtype}, ${elementType(keys)}, ${dim}, ${heads / kvHeads})`;
  });
  return [...new Set(instances)];
}

function* attentionsOf(
  region: Region,
  types: ReadonlyMap<Name, Tensor>,
): Generator<{ readonly keys: Tensor; readonly heads: number }> {
  for (const statement of region.statements) {
    if (statement.kind === 'loop') {
      yield* attentionsOf(statement.body, inferRegion(statement.body, loopScope(statement, types)));
    } else if (isKind(statement, 'attention')) {
      yield { keys: defined(types.get(statement.reads.keys), 'keys'), heads: statement.attributes.heads };
    }
  }
}
