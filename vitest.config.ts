import { configDefaults, defineConfig } from 'vitest/config';
import { LongestFirst } from './tests/support/longest-first.js';

/** TypeScript without native code and without state in modules: a process of its own takes longer than most files run. */
const shared = ['util', 'ir', 'ops', 'models', 'checkpoint', 'text', 'passes', 'simulator'];
const sharing = shared.map((folder) => `src/${folder}/**/*.test.ts`);

export default defineConfig({
  test: {
    setupFiles: ['tests/support/stuck-file.ts'],
    testTimeout: 120_000,
    // Preparing models compiles them, which takes longer where several tests do it at a time.
    hookTimeout: 120_000,
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'alone',
          include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
          exclude: [...configDefaults.exclude, ...sharing],
        },
      },
      { extends: true, test: { name: 'sharing', include: sharing, isolate: false } },
    ],
  },
});
