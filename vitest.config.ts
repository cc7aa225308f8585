import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
    setupFiles: ['tests/support/stuck-file.ts'],
    testTimeout: 120_000,
    // Preparing models compiles them, which takes longer where several tests do it at a time.
    hookTimeout: 120_000,
    maxWorkers: 2,
  },
});
