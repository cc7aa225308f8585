/**
 * What a program means, executed directly: calls in order on n lockstep sockets, operators by their own `evaluate`, loops
 * iteration by iteration. Locals are made anew whenever they are written, so that double buffers, streams and plans (which
 * must not change a result) play no part here. Activations are float32, accumulation is float64.
 */
import type { Operand, Operands } from '../ops/definition.js';
import { definitionOf } from '../ops/index.js';
import { assert, defined } from '../util/assert.js';
import { inferKernel, inferLoop, type Types } from './infer.js';
import { allocate, asOperand, sliceOf, type Slot, type StateStore, createStateStore } from './machine-values.js';
import type { Argument, Call, Kernel, Loop, Name, Operator, Program, Region, Tensor, Value } from './program.js';
import type { Extents } from './tensor.js';

export type Inputs = ReadonlyMap<Name, Float32Array | Int32Array>;

/** The elements of a checkpoint value on one socket, as float32 in row-major order. */
export type LoadWeight = (value: Value, socket: number) => Float32Array;

export interface Machine {
  /** One run of all calls. Resolves outputs and recurring values to what socket 0 has; the data is not reused. */
  run(inputs: Inputs, extents: Extents): Map<Name, Operand>;
  /** The same in pieces: pauses after every call, and after every iteration of a loop over tokens. */
  steps(inputs: Inputs, extents: Extents): Generator<Pause, Map<Name, Operand>>;
}

type TypeOf = (name: Name) => Tensor;

export type Pause = { readonly kind: 'call'; readonly call: Call } | { readonly kind: 'iteration' };

export interface MachineOptions {
  /** Where states live; programs that share it share their states by name. */
  readonly state?: StateStore;
  /** Called before an operator is evaluated; `operand` is that of socket 0, what is written still zero. */
  readonly onOperator?: (operator: Operator, typeOf: TypeOf, operand: Operands, extents: Extents) => unknown;
}

/** One socket's names and what they hold. */
type Frame = Map<Name, Slot>;

export function createMachine(program: Program, loadWeight: LoadWeight, options: MachineOptions = {}): Machine {
  const interpreter = new Interpreter(program, loadWeight, options);
  return {
    steps: (inputs, extents) => interpreter.steps(inputs, extents),
    run: (inputs, extents) => {
      const steps = interpreter.steps(inputs, extents);
      for (;;) {
        const step = steps.next();
        if (step.done === true) return step.value;
      }
    },
  };
}

class Interpreter {
  private readonly kernels: ReadonlyMap<Name, Kernel>;
  private readonly values: ReadonlyMap<Name, Value>;
  private readonly types = new Map<Region, Types>();
  private readonly state: StateStore;
  /** Weights and constants, loaded when they are first used. */
  private readonly fixed = new Map<Name, readonly Operand[]>();

  constructor(
    private readonly program: Program,
    private readonly loadWeight: LoadWeight,
    private readonly options: MachineOptions,
  ) {
    this.kernels = new Map(program.kernels.map((kernel) => [kernel.name, kernel]));
    this.values = new Map(program.values.map((value) => [value.name, value]));
    this.state = options.state ?? createStateStore();
    for (const kernel of program.kernels) this.addTypes(kernel.body, inferKernel(kernel));
  }

  private addTypes(region: Region, types: Types): void {
    this.types.set(region, types);
    for (const statement of region.statements) {
      if (statement.kind === 'loop') this.addTypes(statement.body, inferLoop(statement, types));
    }
  }

  *steps(inputs: Inputs, extents: Extents): Generator<Pause, Map<Name, Operand>> {
    const { sockets, limits, calls, outputs, recurrence } = this.program;
    assert(extents.rows <= limits.rows && extents.samples <= limits.samples, 'more rows or samples than compiled for');
    const temporaries = Array.from({ length: sockets }, () => new Map<Name, Operand>());
    for (const call of calls) {
      const kernel = defined(this.kernels.get(call.kernel), `kernel ${call.kernel}`);
      const frames = temporaries.map((held, socket) => this.enter(kernel, call, inputs, extents, held, socket));
      yield* this.runRegion(kernel.body, frames, extents);
      frames.forEach((frame, socket) => leave(kernel, call, frame, temporaries[socket]!));
      yield { kind: 'call', call };
    }
    const results = [...outputs, ...recurrence.map(({ output }) => output)];
    return new Map(results.map((name) => [name, defined(temporaries[0]!.get(name), name)]));
  }

  /** Names of a kernel at its start: what it reads and updates. */
  private enter(
    kernel: Kernel,
    call: Call,
    inputs: Inputs,
    extents: Extents,
    temporaries: ReadonlyMap<Name, Operand>,
    socket: number,
  ): Frame {
    const frame: Frame = new Map();
    const operand = (name: Name): Operand => temporaries.get(name) ?? this.outside(name, inputs, extents, socket);
    kernel.params.forEach(({ name, access }, at) => {
      if (access === 'write') return;
      const argument: Argument = call.args[at]!;
      frame.set(name, argument.kind === 'value' ? operand(argument.value) : argument.values.map(operand));
    });
    return frame;
  }

  /** A value that no call writes. */
  private outside(name: Name, inputs: Inputs, extents: Extents, socket: number): Operand {
    const value = defined(this.values.get(name), `value ${name}`);
    switch (value.origin.kind) {
      case 'input':
        return asOperand(value.tensor, extents, defined(inputs.get(name), `input ${name}`));
      case 'state':
        return this.state.get(value, this.program.sockets)[socket]!;
      case 'constant':
      case 'checkpoint':
        return this.fixedOperands(value, value.origin)[socket]!;
      case 'temporary':
        throw new Error(`internal error: ${name} is read before it is written`);
      default:
        return value.origin satisfies never;
    }
  }

  private fixedOperands(
    value: Value,
    origin: Value['origin'] & { kind: 'constant' | 'checkpoint' },
  ): readonly Operand[] {
    const known = this.fixed.get(value.name);
    if (known !== undefined) return known;
    const none: Extents = { rows: 0, samples: 0 };
    const operands = Array.from({ length: this.program.sockets }, (_, socket) => {
      if (origin.kind === 'checkpoint') return asOperand(value.tensor, none, this.loadWeight(value, socket));
      const operand = allocate(value.tensor, none);
      operand.data.set(origin.data);
      return operand;
    });
    this.fixed.set(value.name, operands);
    return operands;
  }

  private *runRegion(region: Region, frames: readonly Frame[], extents: Extents): Generator<Pause, void> {
    const types = defined(this.types.get(region), 'types of a region');
    for (const statement of region.statements) {
      if (statement.kind === 'loop') yield* this.runLoop(statement, types, frames, extents);
      else this.runOperator(statement, types, frames, extents);
    }
  }

  private runOperator(operator: Operator, types: Types, frames: readonly Frame[], extents: Extents): void {
    for (const name of Object.values<Name>(operator.writes)) {
      for (const frame of frames) frame.set(name, allocate(defined(types.get(name), name), extents));
    }
    const stacks = frames.map(() => new Map<Name, Operand>());
    const operands = frames.map((frame, socket) => (name: Name): Operand => {
      const slot = defined(frame.get(name), name);
      if (!isStack(slot)) return slot;
      const joined = stacks[socket]!.get(name) ?? join(slot);
      stacks[socket]!.set(name, joined);
      return joined;
    });
    this.options.onOperator?.(operator, (name) => defined(types.get(name), name), operands[0]!, extents);
    definitionOf(operator.kind).evaluate(operator, operands);
    for (const name of Object.values<Name>(operator.updates)) {
      frames.forEach((frame, socket) => {
        const joined = stacks[socket]!.get(name);
        if (joined !== undefined) split(joined, defined(frame.get(name), name));
      });
    }
  }

  private *runLoop(loop: Loop, types: Types, outer: readonly Frame[], extents: Extents): Generator<Pause, void> {
    const carried = outer.map((frame) => {
      const current = new Map<Name, Slot>();
      for (const binding of loop.bindings) {
        if (binding.kind === 'carried') current.set(binding.name, defined(frame.get(binding.outer), binding.outer));
        else if (binding.kind === 'stacked' && binding.access === 'write') {
          frame.set(binding.outer, allocate(defined(types.get(binding.outer), binding.outer), extents));
        }
      }
      return current;
    });
    for (let iteration = 0; iteration < loop.trip; iteration++) {
      const inner = outer.map((frame, socket) => loopFrame(loop, frame, carried[socket]!, iteration));
      yield* this.runRegion(loop.body, inner, extents);
      inner.forEach((frame, socket) => finishIteration(loop, frame, outer[socket]!, carried[socket]!, iteration));
      if (loop.over === 'token') yield { kind: 'iteration' };
      const { until } = loop;
      if (until !== undefined && inner.every((frame) => allNonZero(defined(frame.get(until), until)))) break;
    }
    for (const binding of loop.bindings) {
      if (binding.kind !== 'carried' || binding.final === undefined) continue;
      const { final, name } = binding;
      outer.forEach((frame, socket) => frame.set(final, defined(carried[socket]!.get(name), name)));
    }
  }
}

/** Names of a loop body at the start of an iteration. */
function loopFrame(loop: Loop, outer: Frame, carried: ReadonlyMap<Name, Slot>, iteration: number): Frame {
  const frame: Frame = new Map(carried);
  for (const binding of loop.bindings) {
    if (binding.kind === 'carried') continue;
    const slot = outer.get(binding.outer);
    if (binding.kind === 'invariant') frame.set(binding.name, defined(slot, binding.outer));
    else if (binding.access !== 'write') frame.set(binding.name, sliceOf(defined(slot, binding.outer), iteration));
  }
  return frame;
}

/** Moves what an iteration made to where the next one, or what follows the loop, finds it. */
function finishIteration(loop: Loop, frame: Frame, outer: Frame, carried: Map<Name, Slot>, iteration: number): void {
  for (const binding of loop.bindings) {
    if (binding.kind === 'stacked' && binding.access === 'write') {
      const target = sliceOf(defined(outer.get(binding.outer), binding.outer), iteration);
      split(join(defined(frame.get(binding.name), binding.name)), target);
    }
    if (binding.kind === 'carried') carried.set(binding.name, defined(frame.get(binding.next), binding.next));
  }
}

/** Gives what a kernel wrote to the values that its call names. */
function leave(kernel: Kernel, call: Call, frame: Frame, temporaries: Map<Name, Operand>): void {
  kernel.params.forEach(({ name, access }, at) => {
    if (access !== 'write') return;
    const argument: Argument = call.args[at]!;
    const slot = defined(frame.get(name), name);
    if (argument.kind === 'value') temporaries.set(argument.value, join(slot));
    else argument.values.forEach((value, index) => temporaries.set(value, join(sliceOf(slot, index))));
  });
}

function isStack(slot: Slot): slot is readonly Operand[] {
  return Array.isArray(slot);
}

/** One operand of a slot; that of a stack is a copy. */
function join(slot: Slot): Operand {
  if (!isStack(slot)) return slot;
  const [first] = slot as readonly [Operand];
  const shape = [slot.length, ...first.shape];
  const length = slot.length * first.data.length;
  const data = first.data instanceof Int32Array ? new Int32Array(length) : new Float32Array(length);
  slot.forEach((part, index) => data.set(part.data, index * first.data.length));
  return { dtype: first.dtype, shape, data };
}

/** Copies the elements of `source` into a slot of the same type. */
function split(source: Operand, target: Slot): void {
  if (isStack(target)) target.forEach((part, index) => split(sliceOf(source, index) as Operand, part));
  else target.data.set(source.data);
}

function allNonZero(slot: Slot): boolean {
  return join(slot).data.every((value) => value !== 0);
}
