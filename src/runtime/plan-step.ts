/**
 * Which rows go into the next step. While a prompt waits, a step is a chunk of prompt rows together with one row of every
 * sequence that decodes; otherwise every row is a sample, and the step may make many tokens in one call.
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
  for (const sequence of prompts) {
    const rows = Math.min(free, sequence.promptRows);
    if (rows <= 0) break;
    chosen.push({ sequence, rows });
    free -= rows;
  }
  const parts: Part[] = [];
  let samples = 0;
  for (const { sequence, rows } of chosen) {
    const makesToken = sequence.promptRows <= rows;
    parts.push({ sequence, rows, sample: makesToken ? samples++ : undefined });
  }
  const most = Math.max(...decoding.map((sequence) => sequence.remaining));
  return { step: makeStep(parts, prompts.length > 0 ? 1 : Math.min(steps, most)), parts };
}

function makeStep(parts: readonly Part[], steps: number): Step {
  const tokens: number[] = [];
  const positions: number[] = [];
  const slots: number[] = [];
  const index: number[] = [];
  for (const { sequence, rows, sample } of parts) {
    sequence.nextRows(rows).forEach((token, row) => {
      tokens.push(token);
      positions.push(sequence.position + row);
      slots.push(sequence.request.slot);
    });
    if (sample !== undefined) index.push(tokens.length - 1);
  }
  const sampled = parts.filter(({ sample }) => sample !== undefined).map(({ sequence }) => sequence);
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
