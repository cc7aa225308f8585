/** Test files that take longest come first, so that no core waits for the other at the end. Vitest goes by their size. */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** A minute and more of compiling, from files of a few lines. */
const long = ['src/backends/cuda/conformance.test.ts', 'src/backends/cpu/conformance.test.ts'];

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isLong = ({ moduleId }: TestSpecification): boolean => long.some((path) => moduleId.endsWith(path));
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}
