/** Models that `simulate` prices and nothing runs, for the verbs that take a model that has a program. */
import { existsSync } from 'node:fs';
import { findCostModel } from '../simulator/workloads/shapes.js';
import { UnsupportedModelError } from '../util/errors.js';

/** Throws UnsupportedModelError for the name of such a model; what exists under that name wins. */
export function refusePricedOnly(spec: string): void {
  const shape = findCostModel(spec);
  if (shape === undefined || existsSync(spec)) return;
  throw new UnsupportedModelError(`${shape.name} is only priced, there is no program for it`, {
    hint: `run \`kloop simulate ${shape.name} --machine sn40l\``,
  });
}
