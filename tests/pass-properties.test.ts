/** Passes keep what a program means, bit for bit; looping and fusing can be taken back. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createMachine, type Inputs } from '../src/ir/interpret.js';
import { print } from '../src/ir/print.js';
import type { Name, Program } from '../src/ir/program.js';
import type { Extents } from '../src/ir/tensor.js';
import { verify } from '../src/ir/verify.js';
import { buildProgram } from '../src/models/build.js';
import { findPreset } from '../src/models/presets.js';
import { canonicalize } from '../src/passes/canonical.js';
import { fuseLayers } from '../src/passes/fuse-layers.js';
import { loopCalls } from '../src/passes/loop-calls/index.js';
import type { Pass } from '../src/passes/pass.js';
import { repeatTokens } from '../src/passes/repeat-tokens.js';
import { loopTokens } from '../src/passes/response.js';
import { unfuse, unroll } from '../src/passes/unroll.js';
import { arbitraryProgram, randomInputs, randomWeights } from './random-program.js';
import { tangledInputs, tangledProgram } from './tangled-program.js';
import { passContext } from './support/layered-program.js';

type Data = Float32Array | Int32Array;

/** The pass, with the rules checked before and after. */
function apply(pass: Pass, program: Program): Program {
  verify(program);
  const result = pass(program, passContext).program;
  verify(result);
  return result;
}

/** Outputs of three steps after each other, of which later ones see the state that earlier ones left. */
function meaning(program: Program, source: Program, seed: number): Map<Name, Data>[] {
  const machine = createMachine(program, randomWeights(seed));
  return [0, 1, 2].map((step) => {
    const { inputs, extents } = randomInputs(source, seed, { step });
    return new Map([...machine.run(inputs, extents)].map(([name, { data }]) => [name, data]));
  });
}

function expectSameCalls(a: Program, b: Program): void {
  const [left, right] = [canonicalize(a), canonicalize(b)];
  verify(left);
  verify(right);
  expect(print(left)).toBe(print(right));
}

describe('on random programs', () => {
  it('fuseLayers and loopCalls keep the meaning, from either schedule', () => {
    fc.assert(
      fc.property(arbitraryProgram, fc.nat(), (program, seed) => {
        const fused = apply(fuseLayers, program);
        const expected = meaning(program, program, seed);
        expect(meaning(fused, program, seed)).toEqual(expected);
        expect(meaning(apply(loopCalls, fused), program, seed)).toEqual(expected);
        expect(meaning(apply(loopCalls, program), program, seed)).toEqual(expected);
      }),
      { numRuns: 150 },
    );
  });

  it('unroll takes loopCalls back', () => {
    fc.assert(
      fc.property(arbitraryProgram, (program) => {
        const fused = apply(fuseLayers, program);
        for (const source of [program, fused]) {
          const unrolled = unroll(apply(loopCalls, source));
          verify(unrolled);
          expectSameCalls(unrolled, source);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('unfuse takes fuseLayers back', () => {
    fc.assert(
      fc.property(arbitraryProgram, (program) => {
        const unfused = unfuse(apply(fuseLayers, program));
        verify(unfused);
        expectSameCalls(unfused, program);
      }),
      { numRuns: 200 },
    );
  });

  it('unroll takes loopTokens back', () => {
    fc.assert(
      fc.property(arbitraryProgram, fc.integer({ min: 2, max: 4 }), (program, tokens) => {
        for (const step of [program, apply(loopCalls, apply(fuseLayers, program))]) {
          const response = apply(loopTokens(tokens), step);
          expect(response.calls.length).toBe(1);
          const unrolled = unroll(response);
          verify(unrolled);
          expectSameCalls(unrolled, repeatTokens(step, tokens));
        }
      }),
      { numRuns: 100 },
    );
  });

  it('loopTokens makes the tokens that the host loop makes', () => {
    fc.assert(
      fc.property(arbitraryProgram, fc.nat(), fc.integer({ min: 2, max: 5 }), (program, seed, tokens) => {
        const { inputs, extents } = randomInputs(program, seed, { decode: true });
        const expected = hostLoop(program, inputs, extents, seed, tokens);
        for (const step of [program, apply(loopCalls, program)]) {
          const names = apply((p) => ({ program: repeatTokens(p, tokens), report: report }), step);
          for (const response of [names, apply(loopTokens(tokens), step)]) {
            const results = createMachine(response, randomWeights(seed)).run(inputs, extents);
            const emitted = response.outputs.map((name) => results.get(name)!.data);
            expect(response.outputs.length).toBe(tokens);
            expect(emitted.slice(0, expected.length)).toEqual(expected);
          }
        }
      }),
      { numRuns: 100 },
    );
  });
});

const report = { pass: 'repeatTokens', notes: [], refusals: [] };

/** What is emitted for each token, until all are done. */
function hostLoop(program: Program, first: Inputs, extents: Extents, seed: number, tokens: number): Data[] {
  const machine = createMachine(program, randomWeights(seed));
  const inputs = new Map(first);
  const emitted: Data[] = [];
  for (let token = 0; token < tokens; token++) {
    const results = machine.run(inputs, extents);
    emitted.push(results.get('emitted')!.data);
    for (const { output, input } of program.recurrence) inputs.set(input, results.get(output)!.data);
    if (inputs.get('done')!.every((done) => done !== 0)) break;
  }
  return emitted;
}

describe('on programs that are hard to loop', () => {
  const tangledMeaning = (program: Program): Map<Name, Data>[] => {
    const machine = createMachine(program, randomWeights(1));
    return [0, 1, 2].map((step) => {
      const results = machine.run(tangledInputs(step), { rows: 2, samples: 2 });
      return new Map([...results].map(([name, { data }]) => [name, data]));
    });
  };

  it('loops keep the meaning and can be taken back; calls that stay alone are explained', () => {
    let loops = 0;
    fc.assert(
      fc.property(tangledProgram, (program) => {
        const expected = tangledMeaning(program);
        for (const source of [program, apply(fuseLayers, program)]) {
          const looped = apply(loopCalls, source);
          loops += source.calls.length - looped.calls.length;
          expect(tangledMeaning(looped)).toEqual(expected);
          const unrolled = unroll(looped);
          verify(unrolled);
          expectSameCalls(unrolled, source);
          const alone = looped.calls.some(({ origin }) => origin.layer !== undefined);
          const { refusals } = loopCalls(source, passContext).report;
          if (alone) expect(refusals.length).toBeGreaterThan(0);
        }
      }),
      { numRuns: 300 },
    );
    expect(loops).toBeGreaterThan(300);
  });
});

describe('on published shapes', () => {
  const limits = { rows: 4, samples: 4, slots: 2, context: 64 };

  it.each(['tinystories-15m', 'gemma-2-2b', 'qwen3-0.6b', 'qwen2.5-0.5b'])('takes every loop of %s back', (preset) => {
    const operator = buildProgram(findPreset(preset)!.config, { limits });
    const layer = apply(fuseLayers, operator);
    expectSameCalls(unfuse(layer), operator);
    for (const source of [operator, layer]) {
      const looped = apply(loopCalls, source);
      expect(looped.calls.length).toBe(4);
      const unrolled = unroll(looped);
      expectSameCalls(unrolled, source);
      expect(unrolled.calls.map(({ origin }) => origin)).toEqual(source.calls.map(({ origin }) => origin));
      expect(unrolled.schedule).toBe(source.schedule);
      const response = apply(loopTokens(3), looped);
      expectSameCalls(unroll(response), repeatTokens(looped, 3));
      // Inside the response, a layer that was one call is known by the segments it was fused from.
      const finest = preset.startsWith('gemma') ? source : operator;
      expectSameCalls(unroll(unroll(response)), repeatTokens(finest, 3));
    }
  });

  it('does not take different programs for the same', () => {
    const config = findPreset('tinystories-15m')!.config;
    const program = buildProgram(config, { limits });
    const other = buildProgram({ ...config, normEps: 1e-6 }, { limits });
    const swapped = { ...program, calls: program.calls.toSpliced(3, 1, program.calls[13]!) };
    for (const different of [other, swapped, loopCalls(program, passContext).program]) {
      expect(print(canonicalize(different))).not.toBe(print(canonicalize(program)));
    }
  });
});
