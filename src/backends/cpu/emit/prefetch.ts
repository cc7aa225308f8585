/**
 * Prefetching as pipelineLoops planned it: a worker that waits at a hand-off asks meanwhile for the first tiles of its part
 * of the weights that come after it, over the border of the iteration where that is next.
 */
import type { Loop, Name, StreamedRead, Tensor } from '../../../ir/program.js';
import { defined } from '../../../util/assert.js';
import type { CodeWriter } from '../../../util/code-writer.js';

export interface Prefetch {
  readonly loop: Loop;
  /** C names and types of the loop's body. */
  readonly names: ReadonlyMap<Name, string>;
  /** Bytes from one iteration's weights to the next one's. */
  readonly steps: ReadonlyMap<Name, number>;
  readonly types: ReadonlyMap<Name, Tensor>;
}

/** What a worker asks for while it waits for the end of stage `stage`. */
export function emitPrefetch({ loop, names, steps, types }: Prefetch, stage: number, writer: CodeWriter): void {
  const { pipeline } = loop;
  if (pipeline === undefined || pipeline.stream.length === 0) return;
  const next = nextRead(pipeline.stream, types, stage);
  if (next === undefined) return;
  const ahead = pipeline.depth * pipeline.tileBytes;
  const weight = defined(names.get(next.read.name), next.read.name);
  const step = defined(steps.get(next.read.name), `step of ${next.read.name}`);
  const base = next.wraps ? `(const uint8_t *)${weight} + ${step}` : weight;
  const guard = next.wraps ? `if (${loop.over} + 1 < ${loop.trip}) ` : '';
  writer.line(`${guard}stream_ahead(me, ${base}, ${next.read.bytes}, ${ahead});`);
}

/** The first matrix that is read after `stage`. */
function nextRead(
  stream: readonly StreamedRead[],
  types: ReadonlyMap<Name, Tensor>,
  stage: number,
): { readonly read: StreamedRead; readonly wraps: boolean } | undefined {
  const matrices = stream.filter(({ name }) => types.get(name)?.shape.length === 2);
  const later = matrices.find((read) => read.stage > stage);
  if (later !== undefined) return { read: later, wraps: false };
  const first = matrices[0];
  return first === undefined ? undefined : { read: first, wraps: true };
}
