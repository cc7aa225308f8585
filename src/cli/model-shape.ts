/** What `explain` and `simulate` look at of a checkpoint: its shapes and formats, and none of its weights. */
import { formatsByTensor } from '../checkpoint/checkpoint.js';
import { openCheckpoint } from '../checkpoint/directory.js';
import { resolveModel } from '../checkpoint/resolve.js';
import type { DType } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';

export interface ModelShape {
  readonly config: ModelConfig;
  /** What most matrices are stored in. */
  readonly quant: DType;
  /** What each is stored in, by the checkpoint's names, where they may differ (GGUF). */
  readonly formats?: ReadonlyMap<string, DType>;
}

/** Throws what resolving and opening a model throws. */
export function shapeOfCheckpoint(spec: string): ModelShape {
  const { config, weights, format, formatOf } = openCheckpoint(resolveModel(spec));
  try {
    const formats = formatsByTensor(weights, formatOf);
    return { config, quant: format, ...(formats === undefined ? {} : { formats }) };
  } finally {
    weights.close();
  }
}
