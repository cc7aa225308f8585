import { expect, it } from 'vitest';
import { UsageError } from '../util/errors.js';
import { runBench } from './bench.js';

it('says that a backend has no profile before it measures anything', async () => {
  const seen: string[] = [];
  const options = {
    model: 'demo',
    backend: 'reference',
    rounds: 1,
    tokens: 2,
    promptTokens: 0,
    profile: true,
  } as const;
  const measuring = runBench({ ...options, schedules: ['looped'], onProgress: (label) => seen.push(label) });
  await expect(measuring).rejects.toThrow(UsageError);
  await expect(measuring).rejects.toThrow(/only the cpu backend has a profile; leave out --profile/);
  expect(seen).toEqual([]);
});
