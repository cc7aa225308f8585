/** Stages that a program counts the time of. Emitted only where it is asked for: reading the clock is not free. */
import type { Name } from '../../../ir/program.js';
import { assert } from '../../../util/assert.js';

export interface ProfiledStage {
  /** The C function, which says the program as well: `response_decoder`. */
  readonly kernel: string;
  readonly stage: Name;
}

/** Room that profile.h has. */
const mostStages = 1024;

export class StageProfile {
  readonly stages: ProfiledStage[] = [];

  /** C for the beginning of a kernel. */
  begin(): string {
    return 'profile_begin(me);';
  }

  /** C for what follows the hand-off at the end of a stage. */
  end(kernel: string, stage: Name): string {
    assert(this.stages.length < mostStages, 'a program has too many stages to be profiled');
    return `profile_stage(me, ${this.stages.push({ kernel, stage }) - 1});`;
  }
}
