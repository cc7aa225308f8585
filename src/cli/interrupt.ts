/** Ctrl+C: the first asks the work under way to stop, a second one ends the process at once. */

/** What a process that was stopped with Ctrl+C returns, by convention. */
export const interruptedCode = 130;

export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
}

/** Listens until disposed. */
export function listenForInterrupt(): Interrupt {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(interruptedCode);
    controller.abort();
  };
  process.on('SIGINT', onSignal);
  return { signal: controller.signal, [Symbol.dispose]: () => void process.off('SIGINT', onSignal) };
}
