/**
 * The engine of the cuda backend: one module on one device, the memory of one model, and the launches of its kernel calls.
 * A launch of the host copies the inputs in (one copy where they are neighbours), makes the calls, and copies out.
 */
import { readFileSync } from 'node:fs';
import { baseName } from '../../ir/outline.js';
import type { Name, Program } from '../../ir/program.js';
import { concreteShape, type Extents } from '../../ir/tensor.js';
import { defined } from '../../util/assert.js';
import { ToolchainError } from '../../util/errors.js';
import type { Counters, Step, StepResult, TokenListener } from '../backend.js';
import { runStep, type Arrays, type Launch } from '../host-loop.js';
import type { EngineAddress } from '../messages.js';
import type { Engine } from '../serve-engine.js';
import { CudaDriver, CudaError, Taken, type Address } from './driver.js';
import { DeviceMemory, exchangeAt } from './device-memory.js';
import type { EmittedCall } from './emit/program.js';
import { dependentLaunch } from './launch-config.js';
import { launchAfter, mailboxWords, ringStage, troubleTold, type CudaSetup } from './setup.js';

/** Programs of more kernel calls than this are launched as one graph: the calls of a token, again and again. */
const callsWithoutGraph = 8;

/** Captured launches: all calls of a program for one number of rows and samples. */
interface Graph {
  readonly executable: Address;
  /** The number of the launch after its last one (counters of engine.cuh). */
  readonly next: number;
}

/** Values of the arena that are this close are copied together. */
const neighbourBytes = 4096;

/** A piece of the arena, and where it is in pinned memory. */
interface Piece {
  readonly offset: number;
  readonly bytes: number;
  readonly at: number;
}

type Values = Float32Array | Int32Array;

export class CudaEngine implements Engine {
  private readonly driver: CudaDriver;
  private readonly memory: DeviceMemory;
  private readonly functions = new Map<string, Address>();
  private readonly programs: readonly Program[];
  private readonly graphs = new Map<string, Graph>();
  /** Number of the next launch, and how many there were. */
  private next = 0;
  private kernelCalls = 0;
  private tokens = 0;
  private last: Counters = { kernelCalls: 0, barriers: 0, tokens: 0, bytesRead: 0, waitNs: 0 };
  private broken: Error | undefined;

  private readonly taken = new Taken();

  /** @throws ToolchainError where the driver or the device lacks something; nothing stays taken then */
  constructor(private readonly setup: CudaSetup) {
    const { step, response } = setup.plan;
    this.programs = response === undefined ? [step] : [step, response];
    this.driver = new CudaDriver(setup.driverPath);
    const device = this.driver.device(setup.ordinal);
    this.driver.enter(device);
    this.taken.push(() => this.driver.leave(device));
    try {
      const module = this.driver.loadModule(readFileSync(setup.imagePath));
      this.taken.push(() => this.driver.call('cuModuleUnload', module));
      for (const { symbol, sharedBytes } of setup.calls.flat()) {
        if (this.functions.has(symbol)) continue;
        this.functions.set(symbol, this.driver.functionOf(module, symbol, sharedBytes));
      }
      this.memory = new DeviceMemory(this.driver, setup, this.exchangeBytes(), this.shownTokens(), this.taken);
      const constants = step.values.flatMap(({ name, origin }): [Name, Values][] =>
        origin.kind === 'constant' ? [[name, Float32Array.from(origin.data)]] : [],
      );
      this.write(new Map(constants));
      this.memory.synchronize();
    } catch (error) {
      this.taken.giveBack();
      throw error;
    }
  }

  get engineAddress(): EngineAddress {
    return this.memory.hostAddress;
  }

  async run(step: Step, onToken: TokenListener | undefined): Promise<StepResult> {
    if (this.broken !== undefined) throw this.broken;
    const aborted = (): boolean => Atomics.load(this.setup.aborted, 0) !== 0;
    const extents: Extents = { rows: step.tokens.length, samples: step.index.length };
    const launch: Launch = (program, inputs, _, early) => {
      const showTo = onToken !== undefined && program.schedule === 'response' ? early : undefined;
      return Promise.resolve(this.launch(program, inputs, extents, showTo));
    };
    try {
      const result = await runStep(this.setup.plan, step, launch, { aborted, onToken });
      this.tokens += result.tokens.reduce((sum, { length }) => sum + length, 0);
      this.count();
      if (step.wantLogits !== true) return result;
      const logits = this.read(this.setup.plan.step, ['logits'], extents).get('logits') as Float32Array;
      return { ...result, logits };
    } catch (error) {
      if (!(error instanceof CudaError)) throw error;
      // After a fault the device answers nothing more in this context.
      this.broken = this.fault(error);
      throw this.broken;
    }
  }

  /**
   * All calls of a program once. Logits are read by `run`, and only where they are wanted.
   * @param showTo is told the tokens of a response while its kernel runs
   */
  private launch(program: Program, inputs: Arrays, extents: Extents, showTo?: TokenListener): Arrays {
    const outputs = program.outputs.filter((name) => name !== 'logits');
    const filled = program.schedule !== 'response' ? [] : outputs;
    const unset = filled.map((name): [Name, Values] => [name, this.arrayFor(program, name, program.limits).fill(-1)]);
    this.write(new Map([...inputs, ...unset]));
    this.memory.tokens.fill(-1);
    const calls = defined(this.setup.calls[this.programs.indexOf(program)], 'calls of the program');
    if (this.wantsGraph(calls)) this.launchGraph(program, calls, extents);
    else calls.forEach((call) => this.launchCall(call, extents));
    this.kernelCalls += calls.length;
    if (showTo !== undefined) this.follow(extents.samples, showTo);
    const names = new Set([...outputs, ...program.recurrence.map(({ output }) => output)]);
    return this.read(program, [...names], extents);
  }

  private wantsGraph(calls: readonly EmittedCall[]): boolean {
    return this.setup.launches === 'graph' && calls.length > callsWithoutGraph && !calls[0]!.cooperative;
  }

  /** Looks at the tokens that a kernel shows until it ends; show_tokens of engine.cuh writes them. */
  private follow(samples: number, showTo: TokenListener): void {
    const { tokens, stream } = this.memory;
    const next = Array.from({ length: samples }, (_, sample) => sample);
    for (let ended = false; !ended;) {
      // Asked first: after the end, all of them are there.
      ended = this.driver.isIdle(stream);
      next.forEach((_, sample) => {
        while (next[sample]! < tokens.length) {
          const token = Atomics.load(tokens, next[sample]!);
          if (token < 0) break;
          showTo(sample, token);
          next[sample]! += samples;
        }
      });
    }
  }

  /** The host then says one thing for all calls: what remains is what the device itself takes between kernels. */
  private launchGraph(program: Program, calls: readonly EmittedCall[], extents: Extents): void {
    const key = `${this.programs.indexOf(program)} ${extents.rows} ${extents.samples}`;
    let graph = this.graphs.get(key);
    if (graph === undefined) {
      const executable = this.driver.capture(this.memory.stream, () => {
        calls.forEach((call, index) => this.launchCall(call, extents, this.canBeginEarly(call, calls[index - 1])));
      });
      graph = { executable, next: this.next };
      this.graphs.set(key, graph);
    }
    this.driver.call('cuGraphLaunch', graph.executable, this.memory.stream);
    this.next = graph.next;
  }

  /**
   * Whether a call of a graph may begin before the one before it has ended. Only where neither has blocks that wait for each
   * other: nothing says what comes of a cooperative launch with this attribute, and such kernels do not wait themselves.
   */
  private canBeginEarly(call: EmittedCall, previous: EmittedCall | undefined): boolean {
    if (previous === undefined) return false;
    return this.setup.dependentLaunch && !call.cooperative && !previous.cooperative;
  }

  private launchCall(call: EmittedCall, { rows, samples }: Extents, early = false): void {
    const { threads: blocks } = this.setup;
    const { threads, sharedBytes } = call;
    const params = this.memory.writeLaunch(rows, samples, this.next, call.firstArgument);
    this.next = launchAfter(this.next);
    const kernel = defined(this.functions.get(call.symbol), call.symbol);
    const { stream } = this.memory;
    if (early) {
      const config = dependentLaunch({ blocks, threads, sharedBytes, stream });
      this.driver.call('cuLaunchKernelEx', config, kernel, params, 0n);
      return;
    }
    const shape = [blocks, 1, 1, threads, 1, 1, sharedBytes, stream, params];
    if (call.cooperative) this.driver.call('cuLaunchCooperativeKernel', kernel, ...shape);
    else this.driver.call('cuLaunchKernel', kernel, ...shape, 0n);
  }

  /** What the watchdog of the kernel wrote down, in words. */
  private fault(error: CudaError): Error {
    const word = (index: number): number => this.memory.mailbox[index]!;
    if (word(mailboxWords.trouble) !== troubleTold) return error;
    const [stage, arrived, expected] = [mailboxWords.stage, mailboxWords.arrived, mailboxWords.expected].map(word);
    const place = this.setup.places[stage!] ?? 'an unknown place';
    const where =
      stage === ringStage
        ? `for weights in slot ${arrived} of the ${expected} of its ring`
        : `at the hand-off of ${place}, ${arrived} of ${expected} arrivals`;
    return new ToolchainError(`a kernel waited too long: block ${word(mailboxWords.block)} ${where}`, {
      hint: 'please report this as a bug',
      cause: error,
    });
  }

  private write(values: Arrays): void {
    const sizes = new Map([...values].map(([name, data]) => [name, data.byteLength]));
    const pieces = this.piecesOf(sizes);
    for (const [name, data] of values) {
      const target = new Uint8Array(this.memory.exchange, this.placeIn(pieces, name), data.byteLength);
      target.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    for (const { offset, at, bytes } of pieces) this.memory.toDevice(offset, at, bytes);
  }

  private read(program: Program, names: readonly Name[], extents: Extents): Arrays {
    const arrays = new Map(names.map((name) => [name, this.arrayFor(program, name, extents)]));
    const sizes = new Map([...arrays].map(([name, { byteLength }]) => [name, byteLength]));
    const pieces = this.piecesOf(sizes);
    for (const { offset, at, bytes } of pieces) this.memory.toHost(offset, at, bytes);
    this.memory.synchronize();
    for (const [name, { buffer, byteLength }] of arrays) {
      new Uint8Array(buffer).set(new Uint8Array(this.memory.exchange, this.placeIn(pieces, name), byteLength));
    }
    return arrays;
  }

  /** Few pieces of the arena that hold these values; what lies between neighbours comes along. */
  private piecesOf(sizes: ReadonlyMap<Name, number>): Piece[] {
    const places = [...sizes]
      .filter(([, bytes]) => bytes > 0)
      .map(([name, bytes]) => ({ offset: this.offsetOf(name), bytes }))
      .sort((a, b) => a.offset - b.offset);
    const pieces: Piece[] = [];
    let at = exchangeAt;
    for (const { offset, bytes } of places) {
      const last = pieces.at(-1);
      if (last !== undefined && offset - (last.offset + last.bytes) <= neighbourBytes) {
        const merged = Math.max(last.bytes, offset + bytes - last.offset);
        at += merged - last.bytes;
        pieces[pieces.length - 1] = { ...last, bytes: merged };
      } else {
        at = Math.ceil(at / 64) * 64;
        pieces.push({ offset, bytes, at });
        at += bytes;
      }
    }
    return pieces;
  }

  private placeIn(pieces: readonly Piece[], name: Name): number {
    const offset = this.offsetOf(name);
    const piece = pieces.find((candidate) => offset >= candidate.offset && offset < candidate.offset + candidate.bytes);
    return piece === undefined ? exchangeAt : piece.at + offset - piece.offset;
  }

  private offsetOf(name: Name): number {
    return defined(this.setup.offsets.get(name), `offset of ${name}`);
  }

  private arrayFor(program: Program, name: Name, extents: Extents): Values {
    const value = defined(
      program.values.find((candidate) => candidate.name === name),
      `value ${name}`,
    );
    const elements = concreteShape(value.tensor.shape, extents).reduce((product, dim) => product * dim, 1);
    return value.tensor.dtype === 'i32' ? new Int32Array(elements) : new Float32Array(elements);
  }

  /** The most that is exchanged at once: everything that is no weight, state or activation between calls, or the logits. */
  private exchangeBytes(): number {
    const exchanged = this.programs.flatMap((program) => {
      const hosts = new Set([...program.outputs, ...program.recurrence.map(({ output }) => output)]);
      return program.values
        .filter(({ name, origin }) => hosts.has(name) || origin.kind === 'input' || origin.kind === 'constant')
        .map(({ name }) => this.arrayFor(program, name, program.limits).byteLength + neighbourBytes + 64);
    });
    return exchanged.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** The most tokens that a launch makes. */
  private shownTokens(): number {
    const { response } = this.setup.plan;
    const emitted = response?.outputs.filter((output) => baseName(output) === 'emitted') ?? [];
    return emitted.length * (response?.limits.rows ?? 0);
  }

  private count(): void {
    const [barriers, bytesRead, waitNs] = this.memory.readCounters();
    this.last = { kernelCalls: this.kernelCalls, barriers, bytesRead, waitNs, tokens: this.tokens };
  }

  counters(): Counters {
    return this.last;
  }

  reset(): void {
    for (const [name, bytes] of this.setup.states)
      this.memory.clear(this.memory.arena + BigInt(this.offsetOf(name)), bytes);
    this.memory.synchronize();
  }

  close(): void {
    for (const { executable } of this.graphs.values()) {
      this.taken.push(() => this.driver.call('cuGraphExecDestroy', executable));
    }
    this.taken.giveBack();
  }
}
