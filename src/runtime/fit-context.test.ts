import { describe, expect, it } from 'vitest';
import { formatBytes } from '../util/units.js';
import { fitContext } from './fit-context.js';

const limits = { rows: 64, samples: 2, slots: 2, context: 4096 };

/** What is chosen where a position takes 10 bytes beside 1000 of weights, what is tried, and what is said. */
function chosen(free: number, context = limits.context) {
  const [tried, notices]: [number[], string[]] = [[], []];
  const fitted = fitContext(
    { ...limits, context },
    (asked) => {
      tried.push(asked.context);
      return { needed: 1000 + 10 * asked.context, free };
    },
    (line) => notices.push(line),
  );
  expect(fitted).toEqual({ ...limits, context: fitted.context });
  return { context: fitted.context, tried, notices };
}

describe('fitContext', () => {
  it('takes what is wanted where it fits, and says nothing', () => {
    expect(chosen(41_960)).toEqual({ context: 4096, tried: [4096], notices: [] });
  });

  it('halves it until it fits, and says so', () => {
    const { context, tried, notices } = chosen(41_959);
    expect([context, tried]).toEqual([2048, [4096, 2048]]);
    const free = formatBytes(41_959);
    expect(notices).toEqual([
      `the context is 2048 positions instead of 4096, since ${free} of memory are free; --context asks for a number`,
    ]);
    expect(chosen(3560).context).toBe(256);
  });

  it('leaves it as it is where few positions do not fit either', () => {
    expect(chosen(3559)).toEqual({ context: 4096, tried: [4096, 2048, 1024, 512, 256], notices: [] });
    expect(chosen(1000, 100)).toEqual({ context: 100, tried: [100], notices: [] });
  });
});
