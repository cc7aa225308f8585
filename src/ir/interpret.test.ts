import { describe, expect, it } from 'vitest';
import { randomWeights } from '../../tests/random-data.js';
import { nestedText } from '../../tests/support/nested-program.js';
import { createMachine, type Inputs, type Pause } from './interpret.js';
import { createStateStore, sliceShard } from './machine-values.js';
import { parse } from './parse.js';
import type { Name, Program } from './program.js';
import { verify } from './verify.js';

const extents = { rows: 2, samples: 2 };

function inputs(changes: Record<Name, number[]> = {}): Inputs {
  const ints: Record<Name, number[]> = {
    tokens: [4, 7],
    positions: [0, 3],
    slots: [2, 0],
    index: [0, 1],
    remaining: [9, 9],
    done: [0, 0],
    stop_tokens: Array<number>(16).fill(-1),
    seeds: [1, 2, 3, 4],
    ...changes,
  };
  const settings = Float32Array.from([0.9, 0, 1, 0, 1.1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
  return new Map<Name, Int32Array | Float32Array>([
    ...Object.entries(ints).map(([name, data]): [Name, Int32Array] => [name, Int32Array.from(data)]),
    ['settings', settings],
  ]);
}

const plain = (outputs: ReadonlyMap<Name, { data: Int32Array | Float32Array }>): Record<Name, number[]> =>
  Object.fromEntries([...outputs].map(([name, { data }]) => [name, [...data]]));

const nested = parse(nestedText);

/** The same token step without loops, written out for its two layers. */
const straight = parse(
  nestedText
    .slice(0, nestedText.indexOf('  @segment response'))
    .replaceAll('last_', 'next_')
    .replaceAll('emitted: i32[3, samples]', 'emitted: i32[samples]')
    .replace(/read w_a: .*\n.*\n.*\n/, () =>
      ['w', 'keys', 'values']
        .flatMap((name) => [0, 1].map((layer) => `${name}_${layer}`))
        .map((name) =>
          name.startsWith('w') ? `read ${name}: f32[8, 8] weight,\n` : `update ${name}: f32[4, 2, 16, 4] state,\n`,
        )
        .join(''),
    ) +
    `  @segment all
  history <- appendToken(tokens, slots, positions)
  x_0 = embed(tokens, table; scale 1.5)
  rope = ropeTable(positions, frequencies)
  ${[0, 1]
    .map(
      (i) => `h_${i} = linear(x_${i}, w_${i})
  r_${i} = rope(h_${i}, rope; headDim 4, pairing "halves")
  keys_${i}, values_${i} <- appendKv(r_${i}, h_${i}, slots, positions)
  a_${i} = attention(r_${i}, keys_${i}, values_${i}, slots, positions; heads 2, scale 0.5, softcap 0, window 0)
  x_${i + 1} = add(x_${i}, a_${i})`,
    )
    .join('\n  ')}
  logits = linear(x_2, table)
  token = sample(logits, index, slots, positions, history, settings, seeds)
  next_tokens, next_positions, next_remaining, next_done, emitted = advance(token, index, positions, remaining, done, stop_tokens)
}
` +
    nestedText
      .slice(nestedText.indexOf('\ncall from_table'))
      .replace(
        '[w_a.0, w_a.1], [keys.0, keys.1], [values.0, values.1]',
        'w_a.0, w_a.1, keys.0, keys.1, values.0, values.1',
      )
      .replaceAll('last_', 'next_'),
);

describe('loops', () => {
  it('mean what the same statements mean one after the other', () => {
    verify(straight);
    const loops = createMachine(nested, randomWeights(7));
    const steps = createMachine(straight, randomWeights(7));
    let given = inputs();
    const emitted: number[] = [];
    let last: Record<Name, number[]> = {};
    for (let token = 0; token < 3; token++) {
      const outputs = steps.run(given, extents);
      last = plain(outputs);
      emitted.push(...last['emitted']!);
      given = new Map([
        ...given,
        ...straight.recurrence.map(({ output, input }) => [input, outputs.get(output)!.data] as const),
      ]);
    }
    const looped = plain(loops.run(inputs(), extents));
    expect(looped['emitted']).toEqual(emitted);
    for (const name of ['tokens', 'positions', 'remaining', 'done']) {
      expect(looped[`last_${name}`]).toEqual(last[`next_${name}`]);
    }
    expect(new Set(emitted).size).toBeGreaterThan(1);
    // A second run continues the first, as three more steps would.
    const again = loops.run(inputs({ tokens: last['next_tokens']!, positions: last['next_positions']! }), extents);
    for (let token = 0; token < 3; token++) {
      const outputs = steps.run(given, extents);
      expect([...again.get('emitted')!.data].slice(2 * token, 2 * token + 2)).toEqual([
        ...outputs.get('emitted')!.data,
      ]);
      given = new Map([
        ...given,
        ...straight.recurrence.map(({ output, input }) => [input, outputs.get(output)!.data] as const),
      ]);
    }
  });

  it('end when every element of `until` is set, and carry what they have', () => {
    const run = (remaining: number[]) =>
      plain(createMachine(nested, randomWeights(7)).run(inputs({ remaining }), extents));
    const whole = run([9, 9]);
    const short = run([2, 1]);
    expect(short['last_remaining']).toEqual([0, 0]);
    expect(short['last_done']).toEqual([1, 1]);
    // Two iterations: the second sample is done in the second one; the third never happens.
    expect(short['emitted']).toEqual([...whole['emitted']!.slice(0, 3), -1, 0, 0]);
    expect(run([2, 9])['emitted']!.filter((token) => token === -1)).toHaveLength(1);
  });
});

describe('a machine', () => {
  it('pauses after every token and call, and shows operators before they run', () => {
    const seen: string[] = [];
    const machine = createMachine(nested, randomWeights(7), {
      onOperator: (operator, typeOf, operand) => {
        seen.push(operator.kind);
        for (const name of Object.values<Name>(operator.reads)) {
          expect(operand(name).shape).toHaveLength(typeOf(name).shape.length);
        }
      },
    });
    const pauses: Pause['kind'][] = [];
    for (const pause of machine.steps(inputs(), extents)) pauses.push(pause.kind);
    expect(pauses).toEqual(['call', 'call', 'iteration', 'iteration', 'iteration', 'call']);
    expect(seen.filter((kind) => kind === 'attention')).toHaveLength(6);
    expect(seen.slice(0, 3)).toEqual(['softcap', 'add', 'appendToken']);
  });

  it('shares states with machines that have the same store, until it is cleared', () => {
    const state = createStateStore();
    const [first, second] = [nested, straight].map((program) => createMachine(program, randomWeights(7), { state }));
    const keys = nested.values.find(({ name }) => name === 'keys.0')!;
    const filled = () => state.get(keys, 1)[0]!.data.filter((value) => value !== 0).length;
    first!.run(inputs({ remaining: [1, 1] }), extents);
    // Two rows of 8 features.
    expect(filled()).toBe(16);
    second!.run(inputs({ positions: [1, 4] }), extents);
    expect(filled()).toBe(32);
    state.clear();
    expect(filled()).toBe(0);
    second!.run(inputs(), extents);
    expect(filled()).toBe(16);
    const other = { ...keys, tensor: { ...keys.tensor, shape: [1] } };
    expect(() => state.get(other, 1)).toThrow('keys.0 is shared by programs that differ');
  });

  it('refuses inputs of the wrong size or kind', () => {
    const machine = createMachine(nested, randomWeights(7));
    expect(() => machine.run(inputs({ tokens: [1] }), extents)).toThrow('1 elements');
    expect(() => machine.run(new Map([...inputs(), ['tokens', new Float32Array(2)]]), extents)).toThrow('2 elements');
    expect(() => machine.run(inputs(), { rows: 5, samples: 2 })).toThrow('compiled for');
  });
});

/** y = x . w, the inner dimension divided over two sockets, then y . v, the outer one divided over one pair. */
const parallel = (sockets: number): Program =>
  parse(`program "parallel" schedule operator sockets ${sockets}
limits rows 4 samples 4 slots 1 context 8
input tokens: i32[rows] index
checkpoint table: f32[6, 8] weight = "table"
checkpoint in: f32[${8 / sockets}, 8] weight = "in" shard axis 0 parts ${sockets} replicas 1
checkpoint out: f32[8, ${8 / sockets}] weight = "out" shard axis 1 parts ${sockets} replicas 1
temporary y: f32[rows, 8] activation
temporary g: f32[rows, 8] activation
kernel all (
  read tokens: i32[rows] index, read table: f32[6, 8] weight,
  read in: f32[${8 / sockets}, 8] weight, read out: f32[8, ${8 / sockets}] weight,
  write y: f32[rows, 8] activation, write g: f32[rows, 8] activation,
) {
  @segment all
  x = embed(tokens, table; scale 1)
  h = linear(x, in)
  part = linear(h, out)
  y = allReduce(part; sockets ${sockets})
  g = allGather(h; sockets ${sockets})
}
call all(tokens, table, in, out, y, g)
output y
output g
`);

it('sockets with shards compute what one socket computes', () => {
  const run = (sockets: number) => {
    const program = parallel(sockets);
    verify(program);
    return createMachine(program, randomWeights(3)).run(new Map([['tokens', Int32Array.of(5, 0, 2)]]), {
      rows: 3,
      samples: 1,
    });
  };
  const one = run(1);
  for (const sockets of [2, 4, 8]) {
    const many = run(sockets);
    expect([...many.get('g')!.data]).toEqual([...one.get('g')!.data]);
    many.get('y')!.data.forEach((value, i) => expect(value).toBeCloseTo(one.get('y')!.data[i]!, 5));
  }
});

it('an operator may use a stack as one tensor', () => {
  const program = parse(`program "stacks" schedule operator sockets 1
limits rows 4 samples 4 slots 1 context 8
checkpoint a.0: f32[2] weight = "a0"
checkpoint a.1: f32[2] weight = "a1"
temporary b.0: f32[2] activation
temporary b.1: f32[2] activation
kernel double (
  read a: f32[2, 2] weight, write b: f32[2, 2] activation,
) {
  @segment double
  b = add(a, a)
}
call double([a.0, a.1], [b.0, b.1])
output b.0
output b.1
`);
  verify(program);
  const load = ({ name }: { name: Name }): Float32Array => Float32Array.of(1, name === 'a.0' ? 2 : 3);
  expect(plain(createMachine(program, load).run(new Map(), extents))).toEqual({ 'b.0': [2, 4], 'b.1': [2, 6] });
});

describe('sliceShard', () => {
  const full = Float32Array.from({ length: 12 }, (_, i) => i);
  it('divides either axis, and gives replicas the same part', () => {
    const part = (axis: 0 | 1, parts: number, replicas: number, socket: number) => [
      ...sliceShard(full, [4, 3], { axis, parts, replicas }, socket),
    ];
    expect(part(0, 2, 1, 1)).toEqual([6, 7, 8, 9, 10, 11]);
    expect(part(1, 3, 1, 1)).toEqual([1, 4, 7, 10]);
    expect(part(0, 4, 2, 5)).toEqual([6, 7, 8]);
    expect(part(0, 1, 2, 1)).toEqual([...full]);
    expect(() => part(0, 3, 1, 0)).toThrow('3 equal parts of 4');
  });
});
