/**
 * The order in which test files begin: those that take longest first, so that none of them runs alone in the end while
 * the other worker has nothing to do. vitest itself goes by how long files took the last time, and where it does not
 * know, as in CI, by their size, which says little: the conformance suites are among the shortest files. Files that share
 * a process come last, one after another, or it would be started anew.
 */
import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Those that take longest, longest first. */
const longest = [
  'src/backends/cpu/conformance.test.ts',
  'src/backends/cuda/conformance.test.ts',
  'tests/golden/emitted-cuda.test.ts',
  'tests/cli/bench.test.ts',
  'src/backends/cuda/index.test.ts',
  'tests/mixed-formats.test.ts',
  'tests/pass-properties.test.ts',
  'src/backends/cpu/native.test.ts',
  'tests/cpu-families.test.ts',
  'src/bench/calibrate/solve.test.ts',
  'tests/gguf-models.test.ts',
  'src/backends/cpu/attention.test.ts',
  'tests/bench-cuda.test.ts',
  'tests/gpu-report.test.ts',
  'src/backends/cpu/linear.test.ts',
  'src/simulator/reproduce/report.test.ts',
  'src/passes/pipeline.test.ts',
];

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const { root } = this.ctx.config;
    for (const file of longest) if (!existsSync(join(root, file))) throw new Error(`there is no ${file} to begin with`);
    const rank = ({ moduleId, project }: TestSpecification): number => {
      const at = longest.indexOf(relative(root, moduleId));
      return (at === -1 ? longest.length : at) + (project.config.isolate ? 0 : 2 * longest.length);
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}
