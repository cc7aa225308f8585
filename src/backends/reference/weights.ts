/** Checkpoint tensors as the interpreter wants them: float32, this socket's part, rounded to the program's format. */
import { encodeWeights } from '../../checkpoint/encode.js';
import { readRowsF32 } from '../../checkpoint/read-rows.js';
import { widen, type Weights } from '../../checkpoint/weights.js';
import type { LoadWeight } from '../../ir/interpret.js';
import { plainFormat } from '../../ir/formats.js';
import { sliceShard } from '../../ir/machine-values.js';
import type { Shard } from '../../ir/program.js';
import { assert } from '../../util/assert.js';
import { CheckpointError } from '../../util/errors.js';

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
    const full = readRowsF32(weights, origin.tensor, first, count);
    const own = shard === undefined ? full : sliceShard(full, whole, shard, socket);
    const dtype = plainFormat(tensor.dtype);
    assert(dtype !== 'i32', 'weights are numbers');
    const values = stored === dtype ? own : widen(encodeWeights(own, dtype), dtype);
    loaded.set(key, values);
    return values;
  };
}

function partShape(shape: readonly number[], shard: Shard | undefined): number[] {
  return shape.map((size, axis) => (axis === shard?.axis ? size / shard.parts : size));
}
