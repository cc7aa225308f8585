/**
 * The thread in which an engine lives: it makes synchronous kernel calls, one request after another, so that the event
 * loop of the program stays free. Everything it is told and says is in messages.ts.
 */
import { workerData } from 'node:worker_threads';
import type { Name, Program } from '../../ir/program.js';
import { concreteShape, type Extents } from '../../ir/tensor.js';
import { defined } from '../../util/assert.js';
import type { Counters, Step, StepResult, TokenListener } from '../backend.js';
import { runStep, type Arrays } from '../host-loop.js';
import type { EngineAddress } from '../messages.js';
import { serveEngine, type Engine as ServedEngine } from '../serve-engine.js';
import { loadLibrary, type KernelLibrary } from './library.js';
import type { CpuSetup } from './setup.js';

/** One engine: its library, its programs, and where their values are. */
class Engine implements ServedEngine {
  private readonly library: KernelLibrary;
  private readonly address: EngineAddress;
  private readonly programs: readonly Program[];
  private tokens = 0;

  constructor(private readonly setup: CpuSetup) {
    this.library = loadLibrary(setup.libraryPath);
    this.address = this.library.open(setup);
    const { step, response } = setup.plan;
    this.programs = response === undefined ? [step] : [step, response];
    for (const { name, origin } of step.values) {
      if (origin.kind === 'constant') this.write(name, Float32Array.from(origin.data));
    }
  }

  get engineAddress(): EngineAddress {
    return this.address;
  }

  async run(step: Step, onToken: TokenListener | undefined): Promise<StepResult> {
    const aborted = (): boolean => Atomics.load(this.setup.aborted, 0) !== 0;
    const extents: Extents = { rows: step.tokens.length, samples: step.index.length };
    const launch = (program: Program, inputs: Arrays): Promise<Arrays> =>
      Promise.resolve(this.launch(program, inputs, extents));
    const result = await runStep(this.setup.plan, step, launch, { aborted, onToken });
    this.tokens += result.tokens.reduce((sum, { length }) => sum + length, 0);
    if (step.wantLogits !== true) return result;
    return { ...result, logits: this.read(this.setup.plan.step, 'logits', extents) as Float32Array };
  }

  /** All calls of a program once. Logits are read by `run`, and only where they are wanted. */
  private launch(program: Program, inputs: Arrays, extents: Extents): Arrays {
    const index = this.programs.indexOf(program);
    for (const [name, data] of inputs) this.write(name, data);
    const outputs = program.outputs.filter((name) => name !== 'logits');
    for (const name of outputs) if (program.schedule === 'response') this.fill(program, name, -1);
    for (let call = 0; call < program.calls.length; call++) {
      this.library.launch(this.address, index, call, extents.rows, extents.samples);
    }
    const names = new Set([...outputs, ...program.recurrence.map(({ output }) => output)]);
    return new Map([...names].map((name) => [name, this.read(program, name, extents)]));
  }

  private offsetOf(name: Name): number {
    return defined(this.setup.offsets.get(name), `offset of ${name}`);
  }

  private write(name: Name, data: Float32Array | Int32Array): void {
    if (data.length > 0) this.library.write(this.address, this.offsetOf(name), data);
  }

  private fill(program: Program, name: Name, value: number): void {
    this.write(name, this.arrayFor(program, name, program.limits).fill(value));
  }

  private read(program: Program, name: Name, extents: Extents): Float32Array | Int32Array {
    const array = this.arrayFor(program, name, extents);
    if (array.length > 0) this.library.read(this.address, this.offsetOf(name), array);
    return array;
  }

  private arrayFor(program: Program, name: Name, extents: Extents): Float32Array | Int32Array {
    const value = defined(
      program.values.find((candidate) => candidate.name === name),
      `value ${name}`,
    );
    const elements = concreteShape(value.tensor.shape, extents).reduce((product, dim) => product * dim, 1);
    return value.tensor.dtype === 'i32' ? new Int32Array(elements) : new Float32Array(elements);
  }

  reset(): void {
    for (const [name, bytes] of this.setup.states) this.library.clear(this.address, this.offsetOf(name), bytes);
  }

  counters(): Counters {
    const [kernelCalls, barriers, bytesRead, waitNs] = this.library.counters(this.address);
    return { kernelCalls, barriers, bytesRead, waitNs, tokens: this.tokens };
  }

  close(): void {
    this.library.close(this.address);
  }
}

serveEngine(() => new Engine(workerData as CpuSetup));
