/** Checkpoint tensors as the interpreter wants them: float32, this socket's part, rounded to the program's format. */
import type { Weights } from '../../checkpoint/weights.js';
import type { LoadWeight } from '../../ir/interpret.js';
import { sliceShard } from '../../ir/machine-values.js';
import type { DType, Shard } from '../../ir/program.js';
import { assert, unreachable } from '../../util/assert.js';
import { CheckpointError } from '../../util/errors.js';
import { dequantize } from '../../checkpoint/dequantize.js';
import { quantizedBytes, quantizeQ4_0, quantizeQ8_0 } from '../../checkpoint/quantize.js';
import { bf16ToF32Array, f16ToF32Array, f32ToBf16Array, f32ToF16Array } from '../../util/float.js';

/** Loads every part of a tensor once, whichever programs and sockets ask for it. @throws CheckpointError */
export function weightLoader(weights: Weights): LoadWeight {
  const loaded = new Map<string, Float32Array>();
  return ({ tensor, origin }, socket) => {
    assert(origin.kind === 'checkpoint', 'only checkpoint values are loaded');
    const { rows, shard } = origin;
    const part = shard === undefined ? 0 : Math.floor(socket / shard.replicas);
    const key = JSON.stringify([origin.tensor, rows, shard, part, tensor.dtype]);
    const known = loaded.get(key);
    if (known !== undefined) return known;

    const { shape, dtype: stored } = weights.describe(origin.tensor);
    const { first, count } = rows ?? { first: 0, count: shape[0] ?? 1 };
    const whole = [count, ...shape.slice(1)];
    const fits = first + count <= (shape[0] ?? 1) && partShape(whole, shard).join() === tensor.shape.join();
    if (!fits) {
      throw new CheckpointError(
        weights.path,
        `tensor ${JSON.stringify(origin.tensor)} is [${shape.join(', ')}], the model needs [${tensor.shape.join(', ')}]`,
      );
    }
    const full = weights.readF32(origin.tensor, first, count);
    const own = shard === undefined ? full : sliceShard(full, whole, shard, socket);
    const values = stored === tensor.dtype ? own : rounded(own, tensor.dtype);
    loaded.set(key, values);
    return values;
  };
}

function partShape(shape: readonly number[], shard: Shard | undefined): number[] {
  return shape.map((size, axis) => (axis === shard?.axis ? size / shard.parts : size));
}

/** The values as the format can hold them. */
function rounded(values: Float32Array, dtype: DType): Float32Array {
  switch (dtype) {
    case 'f32':
      return values;
    case 'bf16':
      return bf16ToF32Array(f32ToBf16Array(values));
    case 'f16':
      return f16ToF32Array(f32ToF16Array(values));
    case 'q8_0':
    case 'q4_0': {
      const blocks = new Uint8Array(quantizedBytes(dtype, values.length));
      const result = new Float32Array(values.length);
      (dtype === 'q8_0' ? quantizeQ8_0 : quantizeQ4_0)(values, blocks);
      dequantize(dtype, blocks, result);
      return result;
    }
    case 'i32':
    case 'q4_1':
    case 'q5_0':
    case 'q5_1':
    case 'q4_k':
    case 'q5_k':
    case 'q6_k':
      return unreachable(`weights are never made ${dtype}, only read`);
    default:
      return dtype satisfies never;
  }
}
