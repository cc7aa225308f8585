/** Progress of compiling, which has no parts that could be counted. */
import type { Progress } from './backend.js';

/** Tells once that kernels are compiled, as soon as that is what is waited for. */
export function tellOfCompiling(
  compiling: Promise<unknown>,
  packing: Promise<unknown>,
  onProgress: ((progress: Progress) => void) | undefined,
): void {
  let compiled = false;
  const settled = (): void => {
    compiled = true;
  };
  compiling.then(settled, settled);
  packing.then(
    () => {
      if (!compiled) onProgress?.({ phase: 'compile', done: 0, total: 0, unit: 'steps' });
    },
    () => undefined,
  );
}
