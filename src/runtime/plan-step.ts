/**
 * Which rows go into the next step. While a prompt waits, a step is a chunk of prompt rows together with one row of every
 * sequence that decodes; otherwise every row is a sample, and the step may make many tokens in one call, unless somebody
 * wants to see the logits of each, or says after each what may follow.
 */
import type { Step } from '../backends/backend.js';
import type { Limits } from '../ir/program.js';
import type { Sequence } from './sequence.js';

/** The rows of one sequence in a step. */
export interface Part {
  readonly sequence: Sequence;
  readonly rows: number;
  /** Index of its sample, where the step makes a token for it. */
  readonly sample: number | undefined;
  /** Indices of all its samples: rows at its end. More than one where the logits of a prompt are wanted. */
  readonly samples: readonly number[];
}

export interface PlannedStep {
  readonly step: Step;
  readonly parts: readonly Part[];
}

/** Entries of `Step.stopTokens`. More are cut off; the sequence looks at its full list itself. */
const maxStopTokens = 16;

/** `sequences`: at least one, in the order of arrival; `steps`: token steps where all rows are samples. */
export function planStep(sequences: readonly Sequence[], limits: Limits, steps: number): PlannedStep {
  const decoding = sequences.filter((sequence) => sequence.promptRows === 0);
  const prompts = sequences.filter((sequence) => sequence.promptRows > 0);
  const chosen = decoding.map((sequence) => ({ sequence, rows: 1 }));
  let free = limits.rows - decoding.length;
  // Samples that no sequence of the step needs for its next token.
  let spare = limits.samples - sequences.length;
  for (const sequence of prompts) {
    const scored = sequence.request.scores?.prompt === true;
    const rows = Math.min(free, sequence.promptRows, scored ? 1 + spare : Infinity);
    if (rows <= 0) break;
    chosen.push({ sequence, rows });
    free -= rows;
    if (scored) spare -= rows - 1;
  }
  const parts: Part[] = [];
  let samples = 0;
  for (const { sequence, rows } of chosen) {
    const makesToken = sequence.promptRows <= rows;
    const count = sequence.promptRows > 0 && sequence.request.scores?.prompt === true ? rows : makesToken ? 1 : 0;
    const own = Array.from({ length: count }, () => samples++);
    parts.push({ sequence, rows, sample: makesToken ? own.at(-1) : undefined, samples: own });
  }
  const most = Math.max(...decoding.map((sequence) => sequence.remaining));
  const wantLogits = parts.some(({ sequence, samples }) => sequence.request.scores !== undefined && samples.length > 0);
  const constrained = parts.some(({ sequence }) => sequence.request.constraint !== undefined);
  const single = prompts.length > 0 || wantLogits || constrained;
  const step = makeStep(parts, single ? 1 : Math.min(steps, most));
  return { step: wantLogits ? { ...step, wantLogits } : step, parts };
}

function makeStep(parts: readonly Part[], steps: number): Step {
  const tokens: number[] = [];
  const positions: number[] = [];
  const slots: number[] = [];
  const index: number[] = [];
  for (const { sequence, rows, samples } of parts) {
    sequence.nextRows(rows).forEach((token, row) => {
      tokens.push(token);
      positions.push(sequence.position + row);
      slots.push(sequence.request.slot);
    });
    for (let i = samples.length; i > 0; i--) index.push(tokens.length - i);
  }
  const sampled = parts.flatMap(({ sequence, samples }) => samples.map(() => sequence));
  return {
    tokens: Int32Array.from(tokens),
    positions: Int32Array.from(positions),
    slots: Int32Array.from(slots),
    index: Int32Array.from(index),
    sampling: sampled.map((sequence) => sequence.settings()),
    stopTokens: commonStopTokens(sampled),
    steps,
  };
}

/** A step has one list for all samples: the tokens that end every one of them. */
function commonStopTokens(sequences: readonly Sequence[]): readonly number[] {
  const [first, ...others] = sequences.map((sequence) => sequence.request.stopTokens);
  if (first === undefined) return [];
  return first.filter((token) => others.every((list) => list.includes(token))).slice(0, maxStopTokens);
}
