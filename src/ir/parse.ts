/** Reads the text form that print.ts writes. What is read is well formed, not verified: that is for verify.ts. */
import { dtypes } from './formats.js';
import { parseRegion } from './parse-region.js';
import type {
  Argument,
  Call,
  Dim,
  Kernel,
  Name,
  Param,
  Program,
  Recurrence,
  Role,
  Tensor,
  Value,
  ValueOrigin,
} from './program.js';
import { schedules } from './program.js';
import { TokenReader } from './token-reader.js';

export { ParseError } from './tokens.js';

const roles: readonly Role[] = ['activation', 'weight', 'state', 'index'];
const origins = ['input', 'checkpoint', 'constant', 'state', 'temporary'] as const;

/** The program that `print` gives this text for. @throws ParseError with line and column. */
export function parse(text: string): Program {
  const reader = new TokenReader(text);
  reader.expect('program');
  const name = reader.string();
  reader.expect('schedule');
  const schedule = reader.oneOf(schedules);
  const sockets = counted(reader, 'sockets');
  reader.expect('limits');
  const limits = {
    rows: counted(reader, 'rows'),
    samples: counted(reader, 'samples'),
    slots: counted(reader, 'slots'),
    context: counted(reader, 'context'),
  };
  const values: Value[] = [];
  const kernels: Kernel[] = [];
  const calls: Call[] = [];
  const outputs: Name[] = [];
  const recurrence: Recurrence[] = [];
  while (reader.peek().kind !== 'end') {
    const word = reader.oneOf([...origins, 'kernel', 'call', 'output', 'recur']);
    if (word === 'kernel') kernels.push(parseKernel(reader));
    else if (word === 'call') calls.push(parseCall(reader));
    else if (word === 'output') outputs.push(reader.name());
    else if (word === 'recur') recurrence.push(parseRecurrence(reader));
    else values.push(parseValue(reader, word));
  }
  return { name, schedule, sockets, limits, values, kernels, calls, outputs, recurrence };
}

/** `rows 16`: the word, then the number. */
function counted(reader: TokenReader, word: string): number {
  reader.expect(word);
  return reader.count();
}

function parseTensor(reader: TokenReader): Tensor {
  const dtype = reader.oneOf(dtypes);
  reader.expect('[');
  const shape = reader.list(']', (): Dim =>
    reader.peek().kind === 'number' ? reader.count() : reader.oneOf(['rows', 'samples'] as const),
  );
  return { dtype, shape, role: reader.oneOf(roles) };
}

function parseValue(reader: TokenReader, kind: (typeof origins)[number]): Value {
  const name = reader.name();
  reader.expect(':');
  const tensor = parseTensor(reader);
  return { name, tensor, origin: parseOrigin(reader, kind) };
}

function parseOrigin(reader: TokenReader, kind: (typeof origins)[number]): ValueOrigin {
  switch (kind) {
    case 'input':
    case 'state':
    case 'temporary':
      return { kind };
    case 'constant':
      reader.expect('=');
      reader.expect('[');
      return { kind, data: reader.list(']', () => reader.number()) };
    case 'checkpoint':
      reader.expect('=');
      return {
        kind,
        tensor: reader.string(),
        ...(reader.accept('rows') ? { rows: { first: reader.count(), count: counted(reader, 'count') } } : {}),
        ...(reader.accept('shard') ? { shard: parseShard(reader) } : {}),
        ...(reader.accept('place')
          ? {
              placement: {
                offset: reader.count(),
                bytes: counted(reader, 'bytes'),
                form: reader.oneOf(['rows', 'tiles']),
              },
            }
          : {}),
      };
    default:
      return kind satisfies never;
  }
}

function parseShard(reader: TokenReader): { axis: 0 | 1; parts: number; replicas: number } {
  const axis = counted(reader, 'axis');
  if (axis !== 0 && axis !== 1) throw reader.error(`axis ${axis} cannot be divided`);
  return { axis, parts: counted(reader, 'parts'), replicas: counted(reader, 'replicas') };
}

function parseKernel(reader: TokenReader): Kernel {
  const name = reader.name();
  reader.expect('(');
  const params = reader.list(')', (): Param => {
    const access = reader.oneOf(['read', 'write', 'update']);
    const param = reader.name();
    reader.expect(':');
    return { name: param, tensor: parseTensor(reader), access };
  });
  return { name, params, body: parseRegion(reader) };
}

function parseCall(reader: TokenReader): Call {
  const kernel = reader.name();
  reader.expect('(');
  const args = reader.list(')', (): Argument => {
    if (!reader.accept('[')) return { kind: 'value', value: reader.name() };
    return { kind: 'stack', values: reader.list(']', () => reader.name()) };
  });
  return { kernel, args, origin: reader.accept('layer') ? { layer: reader.count() } : {} };
}

function parseRecurrence(reader: TokenReader): Recurrence {
  const output = reader.name();
  reader.expect('->');
  return { output, input: reader.name() };
}
