/**
 * Collects values and kernel calls written over value names, then makes kernels of them: equal bodies become one kernel,
 * values used by one call only become its locals, and the types of temporaries are inferred.
 */
import { baseName, outline } from '../ir/outline.js';
import type {
  Argument,
  Call,
  Kernel,
  Limits,
  Name,
  Operator,
  Program,
  Recurrence,
  Tensor,
  Value,
  ValueOrigin,
} from '../ir/program.js';
import { usesOf } from '../ir/visit.js';
import { definitionOf } from '../ops/index.js';
import { assert, defined } from '../util/assert.js';

interface PendingCall {
  readonly kernel: Name;
  readonly layer: number | undefined;
  readonly operators: readonly Operator[];
}

export class ProgramBuilder {
  private readonly values = new Map<Name, Value>();
  private readonly calls: PendingCall[] = [];

  constructor(
    private readonly name: string,
    private readonly limits: Limits,
  ) {}

  input(name: Name, tensor: Tensor): void {
    this.add(name, tensor, { kind: 'input' });
  }

  weight(name: Name, tensor: Tensor, checkpointTensor: string): void {
    this.add(name, tensor, { kind: 'checkpoint', tensor: checkpointTensor });
  }

  constant(name: Name, tensor: Tensor, data: readonly number[]): void {
    this.add(name, tensor, { kind: 'constant', data });
  }

  state(name: Name, tensor: Tensor): void {
    this.add(name, tensor, { kind: 'state' });
  }

  /** A call of a kernel with this body; operand names are names of values, declared or written by an earlier call. */
  call(kernel: Name, layer: number | undefined, operators: readonly Operator[]): void {
    this.calls.push({ kernel, layer, operators });
  }

  finish(outputs: readonly Name[], recurrence: readonly Recurrence[]): Program {
    const types = this.inferTemporaries();
    const shared = this.sharedNames(outputs, recurrence);
    const kernels = new Map<string, Kernel>();
    const calls = this.calls.map((call): Call => {
      const { kernel, symbols } = outline(
        call.kernel,
        call.operators,
        [{ kernel: call.kernel, statements: call.operators.length }],
        baseName,
        (symbol) =>
          this.values.has(symbol) || shared.has(symbol) ? { tensor: defined(types.get(symbol), symbol) } : undefined,
      );
      const args = symbols.map((value): Argument => ({ kind: 'value', value }));
      const origin = call.layer === undefined ? {} : { layer: call.layer };
      return { kernel: shareKernel(kernels, kernel), args, origin };
    });
    const temporaries = [...types]
      .filter(([name]) => shared.has(name) && !this.values.has(name))
      .map(([name, tensor]): Value => ({ name, tensor, origin: { kind: 'temporary' } }));
    return {
      name: this.name,
      schedule: 'operator',
      sockets: 1,
      limits: this.limits,
      values: [...this.values.values(), ...temporaries],
      kernels: [...kernels.values()],
      calls,
      outputs,
      recurrence,
    };
  }

  private add(name: Name, tensor: Tensor, origin: ValueOrigin): void {
    assert(!this.values.has(name), `value ${name} declared twice`);
    this.values.set(name, { name, tensor, origin });
  }

  private inferTemporaries(): Map<Name, Tensor> {
    const types = new Map([...this.values].map(([name, value]) => [name, value.tensor]));
    for (const operator of this.calls.flatMap((call) => call.operators)) {
      const written = definitionOf(operator.kind).infer(operator, (name) => defined(types.get(name), name));
      for (const [name, tensor] of Object.entries(written)) types.set(name, tensor);
    }
    return types;
  }

  /** Names written by one call and needed by another, or by the host. */
  private sharedNames(outputs: readonly Name[], recurrence: readonly Recurrence[]): Set<Name> {
    const shared = new Set<Name>([...outputs, ...recurrence.map(({ output }) => output)]);
    const firstCall = new Map<Name, PendingCall>();
    for (const call of this.calls) {
      for (const { name } of call.operators.flatMap(usesOf)) {
        const first = firstCall.get(name) ?? call;
        firstCall.set(name, first);
        if (first !== call) shared.add(name);
      }
    }
    return shared;
  }
}

/** The name under which an equal kernel is known already, or the kernel's own, made unique. */
function shareKernel(kernels: Map<string, Kernel>, kernel: Kernel): Name {
  const content = JSON.stringify([kernel.params, kernel.body]);
  const known = kernels.get(content);
  if (known !== undefined) return known.name;
  const taken = new Set([...kernels.values()].map(({ name }) => name));
  let name = kernel.name;
  for (let index = 2; taken.has(name); index++) name = `${kernel.name}_${index}`;
  kernels.set(content, { ...kernel, name });
  return name;
}
