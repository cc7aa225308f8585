/** A word of the command line: `kloop VERB ...`. */
import type { Command } from 'commander';

/** Adds its command, with options and action. An action may set `process.exitCode`; what it throws is printed. */
export type Verb = (program: Command) => void;
