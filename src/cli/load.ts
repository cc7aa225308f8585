/** Loads a model for a verb, with progress and notices on stderr. */
import { loadModel, type LoadOptions } from '../runtime/load-model.js';
import type { Model } from '../runtime/model.js';
import { note, paint, withProgressBar } from './output.js';

const phases = {
  read: 'reading weights',
  pack: 'packing weights',
  compile: 'compiling kernels',
  load: 'loading weights',
} as const;

/** `quiet` leaves notices out, for a model that is loaded a second time. */
export function loadForCli(
  spec: string,
  options: LoadOptions,
  { quiet = false }: { readonly quiet?: boolean } = {},
): Promise<Model> {
  return withProgressBar((bar) =>
    loadModel(spec, {
      ...options,
      onProgress: ({ phase, done, total, unit }) => bar.update(phases[phase], done, total, unit),
      onNotice: (line) => {
        bar.end();
        if (!quiet) note(paint(process.stderr, 'yellow', `kloop: ${line}`));
      },
    }),
  );
}
