/** Whether weights are those of a model. */
import type { ModelConfig } from '../models/model-config.js';
import { expectedTensors } from '../models/tensors.js';
import { show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import type { Weights } from './weights.js';

/**
 * Every tensor the model needs must be there, in the shape the config implies; one error tells the first and the count.
 * @param source what `config` was read from
 * @param nameOf the name that the file has for a tensor
 */
export function checkTensors(
  weights: Weights,
  config: ModelConfig,
  source: string,
  nameOf: (tensor: string) => string = (tensor) => tensor,
): void {
  const problems = expectedTensors(config).flatMap(({ name, shape }) => {
    if (!weights.has(name)) return [`tensor ${show(nameOf(name))} is missing`];
    const found = weights.describe(name).shape;
    const same = found.length === shape.length && found.every((size, i) => size === shape[i]);
    return same
      ? []
      : [`tensor ${show(nameOf(name))} has shape [${found.join(', ')}], ${source} implies [${shape.join(', ')}]`];
  });
  const [first, ...others] = problems;
  if (first === undefined) return;
  const more = others.length === 0 ? '' : ` (and ${others.length} more tensors do not fit)`;
  throw new CheckpointError(weights.path, `${first}${more}`, {
    hint: `check that ${source} belongs to these weights`,
  });
}
