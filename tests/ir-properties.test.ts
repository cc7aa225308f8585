/** Properties of the intermediate representation that hold for every program. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createMachine } from '../src/ir/interpret.js';
import { parse } from '../src/ir/parse.js';
import { print } from '../src/ir/print.js';
import { verify } from '../src/ir/verify.js';
import { arbitraryProgram, randomInputs, randomWeights } from './random-program.js';

describe('random programs', () => {
  it('are valid, and are what their text says', () => {
    fc.assert(
      fc.property(arbitraryProgram, (program) => {
        verify(program);
        const text = print(program);
        expect(parse(text)).toEqual(program);
        expect(print(parse(text))).toBe(text);
      }),
      { numRuns: 200 },
    );
  });

  it('run to finite numbers, the same ones every time', () => {
    fc.assert(
      fc.property(arbitraryProgram, fc.nat(), (program, seed) => {
        const runs = [0, 1].map(() => {
          const machine = createMachine(program, randomWeights(seed));
          return [0, 1, 2].map((step) => {
            const { inputs, extents } = randomInputs(program, seed, { step });
            return machine.run(inputs, extents);
          });
        });
        expect(runs[0]).toEqual(runs[1]);
        for (const outputs of runs[0]!) expect(outputs.get('logits')!.data.every(Number.isFinite)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });
});
