/** Requests to executables, written as tests think of them: rows with a token, a position and a slot; whole texts. */
import type { Executable, SampleSettings, Step, StepResult } from '../../src/backends/backend.js';

export const greedy: SampleSettings = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: [0, 0],
  remaining: 1000,
};

export interface Row {
  readonly token: number;
  readonly position: number;
  readonly slot?: number;
  /** Where the next token of this row is wanted. */
  readonly sample?: SampleSettings;
}

export function stepOf(rows: readonly Row[], options: Partial<Step> = {}): Step {
  const index = rows.flatMap(({ sample }, row) => (sample === undefined ? [] : [row]));
  return {
    tokens: Int32Array.from(rows, ({ token }) => token),
    positions: Int32Array.from(rows, ({ position }) => position),
    slots: Int32Array.from(rows, ({ slot }) => slot ?? 0),
    index: Int32Array.from(index),
    sampling: index.map((row) => rows[row]!.sample!),
    stopTokens: [],
    steps: 1,
    ...options,
  };
}

export interface Text {
  readonly prompt: readonly number[];
  readonly slot?: number;
  /** Prompt tokens fed at a time. */
  readonly chunk?: number;
  readonly settings?: SampleSettings;
  readonly stopTokens?: readonly number[];
}

/** Feeds all but the last token of the prompt. */
export async function prefill(executable: Executable, { prompt, slot = 0, chunk = 4 }: Text): Promise<void> {
  for (let at = 0; at < prompt.length - 1; at += chunk) {
    const part = prompt.slice(at, Math.min(at + chunk, prompt.length - 1));
    await executable.run(stepOf(part.map((token, row) => ({ token, position: at + row, slot }))));
  }
}

/** Makes `count` tokens in one request, after the prompt. */
export async function generate(executable: Executable, text: Text, count: number): Promise<StepResult> {
  await prefill(executable, text);
  const { prompt, slot = 0, settings = greedy, stopTokens = [] } = text;
  const row = { token: prompt.at(-1)!, position: prompt.length - 1, slot, sample: settings };
  return executable.run(stepOf([row], { steps: count, stopTokens }));
}

export interface Trace {
  readonly tokens: number[];
  /** Of each token, what it was chosen from. */
  readonly logits: Float32Array[];
}

/** Makes `count` tokens with a request for each, and looks at the logits. */
export async function trace(executable: Executable, text: Text, count: number): Promise<Trace> {
  await prefill(executable, text);
  const { prompt, slot = 0, settings = greedy } = text;
  const made: Trace = { tokens: [], logits: [] };
  let token = prompt.at(-1)!;
  for (let i = 0; i < count; i++) {
    const row = { token, position: prompt.length - 1 + i, slot, sample: settings };
    const result = await executable.run(stepOf([row], { wantLogits: true }));
    token = result.tokens[0]![0]!;
    made.tokens.push(token);
    made.logits.push(result.logits!);
  }
  return made;
}

/** Logits after every token of `tokens`, fed in chunks of this many rows, all of which are samples. */
export async function logitsOfAll(
  executable: Executable,
  tokens: readonly number[],
  chunk: number,
  slot = 0,
): Promise<Float32Array[]> {
  const all: Float32Array[] = [];
  for (let at = 0; at < tokens.length; at += chunk) {
    const rows = tokens.slice(at, at + chunk).map((token, i) => ({ token, position: at + i, slot, sample: greedy }));
    const { logits } = await executable.run(stepOf(rows, { wantLogits: true }));
    const vocab = logits!.length / rows.length;
    rows.forEach((_, row) => all.push(logits!.slice(row * vocab, (row + 1) * vocab)));
  }
  return all;
}

/** Largest difference, relative to the range of `expected`. */
export function relativeError(actual: Float32Array, expected: Float32Array): number {
  const range = Math.max(...expected) - Math.min(...expected);
  return expected.reduce((worst, value, i) => {
    const difference = Math.abs(value - actual[i]!) / range;
    // NaN counts as infinitely far.
    return difference <= worst ? worst : Number.isNaN(difference) ? Infinity : difference;
  }, 0);
}

/** Tokens that look random and are the same every time. */
export function promptOf(length: number, vocab: number, seed = 1): number[] {
  return Array.from({ length }, (_, i) => ((i + seed) * 7919 + seed * 104_729 + i * i * 31) % vocab);
}
