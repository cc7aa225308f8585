/**
 * repeatTokens: the host's loop over tokens, made explicit. The calls of one token step stand `tokens` times, and what
 * one step hands to the next (token, position, remaining, done) goes from copy to copy instead of through the host.
 *
 *   embed(tokens, x); ...; sample(logits, next_tokens, emitted)      // next_tokens recurs as tokens
 *     -->
 *   embed(tokens, x); ...; sample(logits, next_tokens, emitted)
 *   embed(next_tokens, x.t1); ...; sample(logits.t1, next_tokens.t1, emitted.t1)
 *
 * Every row is a sample from here on, since the token of a sample is the row of the next copy. Weights, states, constants
 * and other inputs are shared by all copies.
 */
import type { Argument, Call, Dim, Kernel, Name, Program, Tensor, Value } from '../ir/program.js';
import { assert } from '../util/assert.js';

/** @param tokens copies, at least 1 */
export function repeatTokens(program: Program, tokens: number): Program {
  assert(Number.isSafeInteger(tokens) && tokens >= 1, `${tokens} copies of a token step`);
  const step = samplesAreRows(program);
  const temporaries = new Set(step.values.filter(({ origin }) => origin.kind === 'temporary').map(({ name }) => name));
  const inCopy = (name: Name, copy: number): Name => (copy === 0 ? name : `${name}.t${copy}`);
  const recurring = new Map(step.recurrence.map(({ output, input }) => [input, output]));
  const rename = (name: Name, copy: number): Name => {
    if (temporaries.has(name)) return inCopy(name, copy);
    const output = recurring.get(name);
    return copy === 0 || output === undefined ? name : inCopy(output, copy - 1);
  };
  const renameArgument = (argument: Argument, copy: number): Argument =>
    argument.kind === 'value'
      ? { kind: 'value', value: rename(argument.value, copy) }
      : { kind: 'stack', values: argument.values.map((name) => rename(name, copy)) };

  const copies = [...Array(tokens).keys()];
  const last = tokens - 1;
  return {
    ...step,
    values: [
      ...step.values,
      ...copies
        .slice(1)
        .flatMap((copy) =>
          step.values
            .filter(({ name }) => temporaries.has(name))
            .map((value): Value => ({ ...value, name: inCopy(value.name, copy) })),
        ),
    ],
    calls: copies.flatMap((copy) =>
      step.calls.map((call): Call => ({
        ...call,
        args: call.args.map((argument) => renameArgument(argument, copy)),
        origin: {},
      })),
    ),
    outputs: copies.flatMap((copy) => outputsOfCopy(step).map((name) => inCopy(name, copy))),
    recurrence: step.recurrence.map(({ output, input }) => ({ output: inCopy(output, last), input })),
  };
}

/** What the host wants of every token: indices. Logits are too large to be kept for each, what recurs stays inside. */
function outputsOfCopy(step: Program): Name[] {
  const recurring = new Set(step.recurrence.map(({ output }) => output));
  const indices = new Set(step.values.filter(({ tensor }) => tensor.role === 'index').map(({ name }) => name));
  return step.outputs.filter((name) => indices.has(name) && !recurring.has(name));
}

/** The same program where `samples` are counted by `rows`. */
function samplesAreRows(program: Program): Program {
  const rows = Math.min(program.limits.rows, program.limits.samples);
  return {
    ...program,
    limits: { ...program.limits, rows, samples: rows },
    values: program.values.map((value): Value => ({ ...value, tensor: rowsTensor(value.tensor) })),
    kernels: program.kernels.map((kernel): Kernel => ({
      ...kernel,
      params: kernel.params.map((param) => ({ ...param, tensor: rowsTensor(param.tensor) })),
    })),
  };
}

function rowsTensor(tensor: Tensor): Tensor {
  return { ...tensor, shape: tensor.shape.map((dim): Dim => (dim === 'samples' ? 'rows' : dim)) };
}
