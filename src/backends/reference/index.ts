/**
 * The interpreter behind the backend interface: slow, short, right. It is the oracle that the others are compared with,
 * and what runs where there is no compiler. It gives way to other work after every call and token.
 */
import { setImmediate } from 'node:timers/promises';
import type { Weights } from '../../checkpoint/weights.js';
import { createMachine, type LoadWeight, type Machine, type MachineOptions } from '../../ir/interpret.js';
import { allocate, createStateStore } from '../../ir/machine-values.js';
import { dtypes } from '../../ir/formats.js';
import { schedules, type Name, type Program } from '../../ir/program.js';
import type { Extents } from '../../ir/tensor.js';
import { definitionOf } from '../../ops/index.js';
import { ints } from '../../ops/shared.js';
import { defined } from '../../util/assert.js';
import { AbortedError } from '../../util/errors.js';
import { assertChecked } from '../../passes/check-schedule.js';
import type { Backend, Counters, Executable, ExecutionPlan, PrepareOptions } from '../backend.js';
import { optionalInputs, runStep, type Arrays, type Launch } from '../host-loop.js';
import { weightLoader } from './weights.js';

export const referenceBackend: Backend = {
  name: 'reference',
  capabilities: {
    weightFormats: dtypes.filter((dtype) => dtype !== 'i32'),
    stateFormats: ['f32', 'bf16', 'f16', 'q8_0'],
    schedules,
    maxSockets: 64,
    memories: [{ name: 'memory', bytes: Number.MAX_SAFE_INTEGER }],
    tileBytes: 1 << 20,
    maxWorkers: 1,
    defaultWorkers: 1,
  },
  prepare,
};

/** Reads all weights, so that broken ones are found before anything is made of them. @throws CheckpointError */
async function prepare(plan: ExecutionPlan, weights: Weights, { signal }: PrepareOptions): Promise<Executable> {
  const programs = plan.response === undefined ? [plan.step] : [plan.step, plan.response];
  programs.forEach(assertChecked);
  const load = weightLoader(weights);
  for (const { values, sockets } of programs) {
    for (const value of values.filter(({ origin }) => origin.kind === 'checkpoint')) {
      if (signal?.aborted === true) throw new AbortedError('loading the model was stopped');
      for (let socket = 0; socket < sockets; socket++) load(value, socket);
      await setImmediate();
    }
  }
  return createExecutable(plan, programs, load);
}

interface Meter {
  kernelCalls: number;
  tokens: number;
  bytesRead: number;
}

function createExecutable(plan: ExecutionPlan, programs: readonly Program[], load: LoadWeight): Executable {
  const state = createStateStore();
  const meter: Meter = { kernelCalls: 0, tokens: 0, bytesRead: 0 };
  const machines = new Map(
    programs.map((program) => [
      program,
      createMachine(program, load, { state, onOperator: (...at) => (meter.bytesRead += bytesReadBy(...at)) }),
    ]),
  );
  const launch: Launch = async (program, inputs, extents) => {
    const machine = defined(machines.get(program), 'machine');
    const outputs = await inPieces(machine.steps(withOptional(program, inputs, extents), extents), meter);
    return new Map([...outputs].map(([name, { data }]) => [name, data]));
  };
  let queue: Promise<unknown> = Promise.resolve();
  let aborts = 0;
  let closed = false;
  const enqueue = <T>(task: () => Promise<T> | T): Promise<T> => {
    const result = queue.then(task);
    queue = result.catch(() => undefined);
    return result;
  };
  return {
    threads: 1,
    showsTokens: false,
    run: (step, onToken) => {
      if (closed) return Promise.reject(new AbortedError('the model is closed'));
      const asked = aborts;
      return enqueue(async () => {
        const result = await runStep(plan, step, launch, { aborted: () => aborts !== asked, onToken });
        meter.tokens += result.tokens.reduce((sum, tokens) => sum + tokens.length, 0);
        return result;
      });
    },
    abort: () => {
      aborts++;
    },
    get counters(): Counters {
      return { ...meter, barriers: 0, waitNs: 0 };
    },
    reset: () => enqueue(() => state.clear()),
    close: () => {
      closed = true;
      aborts++;
      return enqueue(() => state.clear());
    },
  };
}

type OnOperator = NonNullable<MachineOptions['onOperator']>;

/** Weight and state bytes of one operator, by its cost at the sizes that it meets. */
function bytesReadBy(...[operator, typeOf, operand, extents]: Parameters<OnOperator>): number {
  const reads: Readonly<Record<string, Name>> = operator.reads;
  const positions = reads['positions'] === undefined ? [] : [...ints(operand(reads['positions']))];
  const seen = positions.reduce((sum, position) => sum + position + 1, 0);
  const context = positions.length === 0 ? 0 : seen / positions.length;
  const { weightBytes, stateBytes } = definitionOf(operator.kind).cost(operator, typeOf, { ...extents, context });
  return weightBytes + stateBytes;
}

/** Nobody looks at an optional input that is not given; zeros stand in its place. */
function withOptional(program: Program, inputs: Arrays, extents: Extents): Arrays {
  const missing = program.values.filter(({ name }) => optionalInputs.has(name) && !inputs.has(name));
  return new Map([...inputs, ...missing.map(({ name, tensor }) => [name, allocate(tensor, extents).data] as const)]);
}

/** Runs a machine to its end with a pause for other work after every call and token. */
async function inPieces(steps: ReturnType<Machine['steps']>, meter: Meter): Promise<ReturnType<Machine['run']>> {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    if (step.value.kind === 'call') meter.kernelCalls++;
    await setImmediate();
  }
}
